"""Predicting each token, at a price for looking twice at the same place in the source."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.train.objective.interface import FIRST, Loss, Moment, ObjectiveBlueprint, Task


def repeated(attention: Float[Tensor, "B T S"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Return the attention that went where attention had been, over the target positions in mask.

    For each position sum_i min(a_i, c_i), c being the sum of the attention of those before it
    (See 2017, equation 12).
    """
    weights = attention.to(torch.promote_types(attention.dtype, torch.float32))
    before = F.pad(weights.cumsum(1)[:, :-1], (0, 0, 1, 0))
    return torch.minimum(weights, before).sum(-1).masked_select(mask).sum()


class Coverage(NamedTuple):
    """Cross-entropy and the coverage loss (See 2017, equation 13)."""

    smoothing: float
    weight: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment = FIRST) -> Loss:
        """Score each label, and what the decoder looked at to say it.

        Raises:
            Problem: the decoder does not show where it looks.
        """
        memory, out = model.read(batch.sources, batch.inputs)
        if out.attention is None:
            raise Problem(
                "the coverage loss is about where the decoder looks, and this decoder has no one "
                "attention to show; take a recurrent decoder with an attention as its connection, "
                "or the objective cross_entropy",
                "train.objective",
            )
        source = model.head.start(memory)
        loss, nll = model.head.loss(out, source, batch.labels, self.smoothing)
        again = repeated(out.attention, batch.labels.mask())
        return Loss(loss + self.weight * again, nll)


class CoverageBlueprint(ObjectiveBlueprint):
    """Predict each token, and do not look where the decoder has looked before."""

    kind: Literal["coverage"] = "coverage"
    smoothing: float = Field(0.1, ge=0, lt=1)
    """probability taken from the true token and spread over all"""
    weight: float = Field(1.0, gt=0)
    """price of attention that goes where attention has been, in nats"""

    def build(self, task: Task | None = None) -> Coverage:
        """Make it."""
        return Coverage(self.smoothing, self.weight)
