"""Constraints: scorers around scorers that say what may follow."""

from __future__ import annotations

from transduce.search.constrain.constraint import (
    Constrained,
    Constraint,
    ConstraintBlueprint,
    Target,
    constrained,
)
from transduce.search.constrain.length import MinimumLength, MinimumLengthBlueprint
from transduce.search.constrain.phrases import ForbiddenBlueprint, forbid
from transduce.search.constrain.repeat import (
    NoRepeat,
    NoRepeatBlueprint,
    RepetitionPenalty,
    RepetitionPenaltyBlueprint,
)

__all__ = [
    "Constrained",
    "Constraint",
    "ConstraintBlueprint",
    "ForbiddenBlueprint",
    "MinimumLength",
    "MinimumLengthBlueprint",
    "NoRepeat",
    "NoRepeatBlueprint",
    "RepetitionPenalty",
    "RepetitionPenaltyBlueprint",
    "Target",
    "constrained",
    "forbid",
]
