"""Predicting each token after the true ones before it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.train.objective.interface import FIRST, Loss, Moment, ObjectiveBlueprint, Task


class CrossEntropy(NamedTuple):
    """Teacher forcing (Williams & Zipser 1989) with label smoothing (Szegedy 2016)."""

    smoothing: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment = FIRST) -> Loss:
        """Score each label after the true tokens before it."""
        given = batch.sources, batch.inputs, batch.labels, self.smoothing, batch.label_weights
        return Loss(*model(*given))


class CrossEntropyBlueprint(ObjectiveBlueprint):
    """Predict each token after the true ones before it."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    smoothing: float = Field(0.1, ge=0, lt=1)
    """probability taken from the true token and spread over all"""

    @property
    def weighs(self) -> bool:
        """It does."""
        return True

    def build(self, task: Task | None = None) -> CrossEntropy:
        """Make it."""
        return CrossEntropy(self.smoothing)
