"""Making drawn answers likelier that are better than the one the model would give."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.search import Greedy
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


class SelfCritical(NamedTuple):
    """Self-critical training (Rennie 2017): REINFORCE (Williams 1992) with a greedy baseline.

    The loss of an example is the mean over drawn answers y of (risk(y) - risk(greedy answer)) times
    log P(y), times the number of its target tokens as in minimum risk training: on average over the
    draws it has the gradient of the expected risk.
    """

    objective: Objective | None
    judge: Judge
    samples: int
    weight: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score what the model answers."""
        task = self.judge.task
        best = found(Greedy(), model, batch, task)
        drawn = found(sampled(self.samples, 1.0, moment), model, batch, task)
        candidates = [[*one, *own] for one, own in zip(best, drawn, strict=True)]
        risks = self.judge(batch, candidates)
        answers = [[truth, *own] for truth, own in zip(truths(batch), drawn, strict=True)]
        scored = score(model, batch, answers)
        risk = scored.aligned(risks)
        worse = risk[:, 1:] - risk[:, :1]
        slope = (worse * scored.log_probs[:, 1:]).mean(1)
        reinforced = self.weight * (counts(batch) * slope).sum()
        if self.objective is None:
            return Loss(reinforced, -scored.log_probs[:, 0].detach().sum())
        beside = self.objective(model, batch, moment)
        return Loss(beside.total + reinforced, beside.nll)


class SelfCriticalBlueprint(JudgingBlueprint):
    """Make drawn answers likelier that are better than the one the model would give."""

    kind: Literal["self_critical"] = "self_critical"
    samples: int = Field(1, ge=1)
    """answers to draw for each source; the time of an update grows with them"""

    def build(self, task: Task) -> SelfCritical:
        """Make it."""
        inner = self.beside(task)
        return SelfCritical(inner, Judge(self.metric.build(), task), self.samples, self.weight)
