"""Saying what other models say: word by word, all symbols."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from transduce.data.batch import Batch
from transduce.models.interface import Head, Readout
from transduce.models.seq2seq import Seq2Seq
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.interface import Loss, Moment, Objective, ObjectiveBlueprint, Task
from transduce.train.objective.passes import (
    LEAST,
    Table,
    over_tables,
    overhearing,
    table,
    the_last,
    total,
)


class Distillation(NamedTuple):
    """Knowledge distillation (Hinton 2015) word by word (Kim & Rush 2016).

    The loss is (1 - weight) times that of the objective within, and weight temperature^2 times the
    divergence KL(teacher, student), both softened by the temperature; of several teachers the mean
    of their probabilities counts. Teachers are no part of the learner: nothing about them is
    trained, moved or saved.
    """

    objective: Objective
    teachers: tuple[Seq2Seq, ...]
    temperature: float
    weight: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score the labels, and all symbols against what the teachers say of them."""
        with overhearing(model) as heard:
            loss = self.objective(model, batch, moment)
        student = the_last(heard, len(batch), "distillation")
        taught = [_taught(teacher, batch) for teacher in self.teachers]

        def judge(said: Table, part: slice) -> Tensor:
            wanted = self._softened(_mean(taught, part))
            missed = wanted.clamp_min(LEAST) - self._softened(said).clamp_min(LEAST)
            return total((wanted.exp() * missed).sum(-1), batch, part)

        apart = torch.stack(over_tables(model, student, judge)).sum()
        share = self.weight * self.temperature**2
        return Loss((1 - self.weight) * loss.total + share * apart, loss.nll)

    def _softened(self, log_probs: Float[Tensor, "B t V"]) -> Float[Tensor, "B t V"]:
        return (
            log_probs if self.temperature == 1 else (log_probs / self.temperature).log_softmax(-1)
        )


class _Taught(NamedTuple):
    """What a teacher made of a batch."""

    head: Head
    out: Readout
    source: Any


@torch.no_grad()
def _taught(teacher: Seq2Seq, batch: Batch) -> _Taught:
    memory, out = teacher.read(batch.sources, batch.inputs)
    return _Taught(teacher.head, out, teacher.head.start(memory))


@torch.no_grad()
def _mean(taught: list[_Taught], part: slice) -> Float[Tensor, "B t V"]:
    """Return the logarithm of the teachers' mean probabilities at some positions."""
    said = torch.stack([table(*teacher, part) for teacher in taught])
    return said.logsumexp(0) - math.log(len(taught))


class DistillationBlueprint(ObjectiveBlueprint):
    """Say what other models say, all symbols of each word."""

    kind: Literal["distillation"] = "distillation"
    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    """folders of runs or of models with the same vocabularies, as on the command line; several
    teach by their mean"""
    objective: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised besides"""
    temperature: float = Field(1.0, gt=0)
    """above 1, what the teachers find unlikely counts for more"""
    weight: float = Field(0.5, gt=0, le=1)
    """share of what the teachers say; the rest is the objective's"""

    def build(self, task: Task) -> Distillation:
        """Make it.

        Raises:
            Problem: a teacher cannot be read, or has other vocabularies.
        """
        inner, teachers = self.objective.build(task), task.others(self.teachers)
        return Distillation(inner, teachers, self.temperature, self.weight)
