"""Metrics, and scores that can be compared: with intervals, signatures and tests."""

from __future__ import annotations

from transduce.evaluate.error_rates import (
    CharacterErrorRateBlueprint,
    ExactMatchBlueprint,
    PhoneErrorRateBlueprint,
    SequenceErrorBlueprint,
    WordErrorRateBlueprint,
)
from transduce.evaluate.expected import Utility, expected_utilities
from transduce.evaluate.metrics import Metric, MetricBlueprint, References
from transduce.evaluate.rouge import RougeBlueprint
from transduce.evaluate.sacre import BleuBlueprint, ChrfBlueprint, TerBlueprint
from transduce.evaluate.scores import (
    Comparison,
    Score,
    compare,
    evaluate,
    perplexity,
    perplexity_score,
)

__all__ = [
    "BleuBlueprint",
    "CharacterErrorRateBlueprint",
    "ChrfBlueprint",
    "Comparison",
    "ExactMatchBlueprint",
    "Metric",
    "MetricBlueprint",
    "PhoneErrorRateBlueprint",
    "References",
    "RougeBlueprint",
    "Score",
    "SequenceErrorBlueprint",
    "TerBlueprint",
    "Utility",
    "WordErrorRateBlueprint",
    "compare",
    "evaluate",
    "expected_utilities",
    "perplexity",
    "perplexity_score",
]
