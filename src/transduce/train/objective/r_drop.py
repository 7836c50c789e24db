"""Saying the same whatever is dropped."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transduce import tree
from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import Dropout
from transduce.problem import Problem
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.interface import Loss, Moment, Objective, ObjectiveBlueprint, Task
from transduce.train.objective.passes import (
    LEAST,
    Pass,
    Table,
    over_tables,
    overhearing,
    the_last,
    total,
)


class RDrop(NamedTuple):
    """R-Drop (Liang 2021): each example is read twice, and the answers should not differ.

    It is half of the sum in the paper, so that it counts as one batch: the mean of both losses and
    a quarter of ``weight`` times the divergences both ways.
    """

    objective: Objective
    weight: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score both passes, and how far they are from each other.

        Raises:
            Problem: the model drops nothing.
        """
        if not any(map(_drops, model.modules())):
            raise Problem(
                "r_drop compares two passes that differ in what is dropped, and this model drops "
                "nothing; set dropout in model.encoder or model.decoder, or take the objective "
                "within r_drop alone",
                "train.objective",
            )
        twice = tree.widen(batch, 2)
        with overhearing(model) as heard:
            loss = self.objective(model, twice, moment)
        apart = divergence(model, the_last(heard, len(twice), "r_drop"), batch)
        return Loss((loss.total + self.weight / 2 * apart) / 2, loss.nll / 2)


def divergence(model: Seq2Seq, twins: Pass, batch: Batch) -> Float[Tensor, ""]:
    """Return KL(p, q) + KL(q, p) in nats, summed over the target positions of a batch.

    p and q are what is said after the two rows of each example, which are adjacent.
    """

    def judge(said: Table, part: slice) -> Tensor:
        first, second = said[::2], said[1::2]
        # Both divergences in one sum; where one is 0 the other is, and so is their difference.
        logs = first.clamp_min(LEAST) - second.clamp_min(LEAST)
        return total(((first.exp() - second.exp()) * logs).sum(-1), batch, part)

    return torch.stack(over_tables(model, twins, judge)).sum()


def _drops(part: nn.Module) -> bool:
    return (isinstance(part, Dropout) and part.rate > 0) or (
        isinstance(part, nn.Dropout) and part.p > 0
    )


class RDropBlueprint(ObjectiveBlueprint):
    """Read each example twice, and say the same whatever is dropped."""

    kind: Literal["r_drop"] = "r_drop"
    objective: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised in both passes"""
    weight: float = Field(5.0, gt=0)
    """price of a difference (alpha in the paper)"""

    def build(self, task: Task) -> RDrop:
        """Make it."""
        return RDrop(self.objective.build(task), self.weight)
