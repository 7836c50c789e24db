"""Objectives: what training minimises, given a model and a batch."""

from __future__ import annotations

from transduce.train.objective.coverage import CoverageBlueprint
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.interface import (
    Learner,
    Loss,
    Moment,
    Objective,
    ObjectiveBlueprint,
    Task,
)

__all__ = [
    "CoverageBlueprint",
    "CrossEntropyBlueprint",
    "Learner",
    "Loss",
    "Moment",
    "Objective",
    "ObjectiveBlueprint",
    "Task",
]
