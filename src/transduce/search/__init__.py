"""Searches: functions of the three verbs of a scorer, so that each works with every model."""

from __future__ import annotations

from transduce.search.banked_beam import BankedBeam
from transduce.search.beam import Beam
from transduce.search.diverse_beam import DiverseBeam
from transduce.search.draft import Draft, DraftedSearch
from transduce.search.ensemble import Average, Ensemble
from transduce.search.exact import Exact, search_errors
from transduce.search.fusion import Fusion, fused
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
from transduce.search.sample import Sample
from transduce.search.score import force
from transduce.search.scorer import Quotable, Scorer
from transduce.search.speculative import Aided, Speculative
from transduce.search.stepwise import StepwiseSearch, answers
from transduce.search.stochastic_beam import StochasticBeam
from transduce.search.truncate import Epsilon, MinP, TopK, TopP, Truncation, Typical

__all__ = [
    "Aided",
    "AtLeast",
    "Average",
    "BankedBeam",
    "Batch",
    "Beam",
    "DiverseBeam",
    "Draft",
    "DraftedSearch",
    "Ensemble",
    "Epsilon",
    "Exact",
    "Fusion",
    "GnmtNormalisation",
    "Greedy",
    "Hypotheses",
    "Length",
    "LengthNormalisation",
    "MinP",
    "PowerNormalisation",
    "Quotable",
    "RewardNormalisation",
    "Sample",
    "Scorer",
    "SearchBlueprint",
    "Speculative",
    "StepwiseSearch",
    "StochasticBeam",
    "TopK",
    "TopP",
    "Trace",
    "Truncation",
    "Typical",
    "answers",
    "force",
    "fused",
    "search_errors",
]
