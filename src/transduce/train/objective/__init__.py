"""Objectives: what training minimises, given a model and a batch."""

from __future__ import annotations

from transduce.train.objective.adversarial import AdversarialBlueprint
from transduce.train.objective.coverage import CoverageBlueprint
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.decay import (
    DecayBlueprint,
    ExponentialDecay,
    InverseSigmoidDecay,
    LinearDecay,
)
from transduce.train.objective.distillation import DistillationBlueprint
from transduce.train.objective.guided_alignment import GuidedAlignmentBlueprint
from transduce.train.objective.in_turn import InTurnBlueprint
from transduce.train.objective.interface import (
    Learner,
    Loss,
    Moment,
    Objective,
    ObjectiveBlueprint,
    Task,
)
from transduce.train.objective.minimum_risk import MinimumRiskBlueprint
from transduce.train.objective.r_drop import RDropBlueprint
from transduce.train.objective.scheduled_sampling import ScheduledSamplingBlueprint
from transduce.train.objective.self_critical import SelfCriticalBlueprint
from transduce.train.objective.token_dropout import TokenDropoutBlueprint

__all__ = [
    "AdversarialBlueprint",
    "CoverageBlueprint",
    "CrossEntropyBlueprint",
    "DecayBlueprint",
    "DistillationBlueprint",
    "ExponentialDecay",
    "GuidedAlignmentBlueprint",
    "InTurnBlueprint",
    "InverseSigmoidDecay",
    "Learner",
    "LinearDecay",
    "Loss",
    "MinimumRiskBlueprint",
    "Moment",
    "Objective",
    "ObjectiveBlueprint",
    "RDropBlueprint",
    "ScheduledSamplingBlueprint",
    "SelfCriticalBlueprint",
    "Task",
    "TokenDropoutBlueprint",
]
