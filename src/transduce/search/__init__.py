"""Searches: functions of the three verbs of a scorer, so that each works with every model."""

from __future__ import annotations

from transduce.search.beam import Beam
from transduce.search.draft import Draft
from transduce.search.greedy import Greedy
from transduce.search.hypotheses import (
    GnmtNormalisation,
    Hypotheses,
    LengthNormalisation,
    PowerNormalisation,
    RewardNormalisation,
    Trace,
)
from transduce.search.interface import Batch, SearchBlueprint
from transduce.search.length import AtLeast, Length
from transduce.search.score import force
from transduce.search.scorer import Quotable, Scorer
from transduce.search.stepwise import StepwiseSearch, answers

__all__ = [
    "AtLeast",
    "Batch",
    "Beam",
    "Draft",
    "GnmtNormalisation",
    "Greedy",
    "Hypotheses",
    "Length",
    "LengthNormalisation",
    "PowerNormalisation",
    "Quotable",
    "RewardNormalisation",
    "Scorer",
    "SearchBlueprint",
    "StepwiseSearch",
    "Trace",
    "answers",
    "force",
]
