"""Making what a metric likes more likely, among answers of the model's own."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.train.objective.candidates import (
    Judge,
    JudgingBlueprint,
    counts,
    found,
    sampled,
    score,
    truths,
)
from transduce.train.objective.interface import Loss, Moment, Objective, Task


class MinimumRisk(NamedTuple):
    """Minimum risk training (Shen 2016).

    Candidates are the true target and what was drawn from the model, each once. The loss of an
    example is its expected risk, sum Q(y) risk(y) where Q is P(y) ** sharpness made to sum to 1
    over the candidates, times the number of its target tokens: so it weighs as much as in the
    cross-entropy, and sums add up over batches.
    """

    objective: Objective | None
    judge: Judge
    samples: int
    temperature: float
    sharpness: float
    weight: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score what the model answers."""
        search = sampled(self.samples, self.temperature, moment)
        drawn = found(search, model, batch, self.judge.task)
        candidates = [
            [list(ids) for ids in dict.fromkeys(map(tuple, [truth, *own]))]
            for truth, own in zip(truths(batch), drawn, strict=True)
        ]
        risks = self.judge(batch, candidates)
        scored = score(model, batch, candidates)
        likely = (self.sharpness * scored.log_probs).masked_fill(~scored.real, -torch.inf)
        expected = (likely.softmax(1) * scored.aligned(risks)).sum(1)
        risk = self.weight * (counts(batch) * expected).sum()
        if self.objective is None:
            return Loss(risk, -scored.log_probs[:, 0].detach().sum())
        beside = self.objective(model, batch, moment)
        return Loss(beside.total + risk, beside.nll)


class MinimumRiskBlueprint(JudgingBlueprint):
    """Make likelier, among answers of the model's own, what a metric likes."""

    kind: Literal["minimum_risk"] = "minimum_risk"
    samples: int = Field(20, ge=1)
    """answers to draw for each source; the time of an update grows with them"""
    temperature: float = Field(1.0, gt=0)
    """below 1 likely tokens are drawn even more often, above 1 less"""
    sharpness: float = Field(0.005, gt=0)
    """how much likely candidates count for more than unlikely ones (alpha in the paper)"""

    def build(self, task: Task) -> MinimumRisk:
        """Make it."""
        inner = self.beside(task)
        judge = Judge(self.metric.build(), task)
        return MinimumRisk(
            inner, judge, self.samples, self.temperature, self.sharpness, self.weight
        )
