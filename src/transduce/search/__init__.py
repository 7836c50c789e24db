"""Searches: functions of the three verbs of a scorer, so that each works with every model."""

from __future__ import annotations

from transduce.search.beam import Beam
from transduce.search.ensemble import Average, Ensemble
from transduce.search.exact import Exact, search_errors
from transduce.search.greedy import Greedy
from transduce.search.hypotheses import (
    Hypotheses,
    LengthNormalisation,
    PowerNormalisation,
    Trace,
)
from transduce.search.interface import Batch, SearchBlueprint
from transduce.search.score import force
from transduce.search.scorer import Scorer
from transduce.search.stepwise import StepwiseSearch, answers

__all__ = [
    "Average",
    "Batch",
    "Beam",
    "Ensemble",
    "Exact",
    "Greedy",
    "Hypotheses",
    "LengthNormalisation",
    "PowerNormalisation",
    "Scorer",
    "SearchBlueprint",
    "StepwiseSearch",
    "Trace",
    "answers",
    "force",
    "search_errors",
]
