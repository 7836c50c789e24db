"""Searches: functions of the three verbs of a scorer, so that each works with every model."""

from __future__ import annotations

from transduce.search.beam import Beam
from transduce.search.diverse_beam import DiverseBeam
from transduce.search.greedy import Greedy
from transduce.search.hypotheses import (
    Hypotheses,
    LengthNormalisation,
    PowerNormalisation,
    Trace,
)
from transduce.search.interface import Batch, SearchBlueprint
from transduce.search.sample import Sample
from transduce.search.score import force
from transduce.search.scorer import Scorer
from transduce.search.stepwise import StepwiseSearch, answers
from transduce.search.stochastic_beam import StochasticBeam
from transduce.search.truncate import Epsilon, MinP, TopK, TopP, Truncation, Typical

__all__ = [
    "Batch",
    "Beam",
    "DiverseBeam",
    "Epsilon",
    "Greedy",
    "Hypotheses",
    "LengthNormalisation",
    "MinP",
    "PowerNormalisation",
    "Sample",
    "Scorer",
    "SearchBlueprint",
    "StepwiseSearch",
    "StochasticBeam",
    "TopK",
    "TopP",
    "Trace",
    "Truncation",
    "Typical",
    "answers",
    "force",
]
