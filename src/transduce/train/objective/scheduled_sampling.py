"""Reading, now and then, what the model would have said instead of the truth."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.search.noise import draw
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.decay import DecayBlueprint, InverseSigmoidDecay
from transduce.train.objective.interface import Loss, Moment, Objective, ObjectiveBlueprint, Task
from transduce.train.objective.passes import pieces, reading, table

Choice = Literal["sampled", "best"]


class ScheduledSampling(NamedTuple):
    """Scheduled sampling (Bengio 2015) for all positions at once (Mihaylova & Martins 2019).

    A pass over the true targets says what the model would put at each place; then each token that
    is read stays the true one with the probability of the moment, or else becomes that one. Each
    further pass reads what the one before it made (Duckworth 2019): after n of them the first n
    tokens are what they would be, had they been read and said one by one. No gradient goes through
    what was said.
    """

    objective: Objective
    truth: DecayBlueprint
    choice: Choice
    passes: int

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score what the objective within scores, after mixed tokens."""
        inputs, probability = batch.inputs.data, self.truth.at(moment.step)
        kept = moment.chance("what is read", batch.index, inputs.shape[1]) < probability
        kept[:, 0] = True  # the beginning
        if not kept.all():
            chance = moment.chance("what is said", batch.index, inputs.shape[1])
            batch = reading(batch, self._mixed(model, batch, kept, chance))
        return self.objective(model, batch, moment)

    @torch.no_grad()
    def _mixed(
        self,
        model: Seq2Seq,
        batch: Batch,
        kept: Bool[Tensor, "B T"],
        chance: Float[Tensor, "B T"],
    ) -> Int[Tensor, "B T"]:
        """Return the tokens to read."""
        memory, truth = model.encode(batch.sources), batch.inputs.data
        source, mixed = model.head.start(memory), truth
        for _ in range(self.passes):
            out = model.decoder(model.readable(mixed), memory)
            said = [
                self._chosen(table(model.head, out, source, part), chance[:, part])
                for part in pieces(truth.shape[1], len(truth))
            ]
            mixed = torch.where(kept, truth, torch.cat([truth[:, :1], *said], 1)[:, :-1])
        return mixed

    def _chosen(
        self, log_probs: Float[Tensor, "B t V"], chance: Float[Tensor, "B t"]
    ) -> Int[Tensor, "B t"]:
        if self.choice == "best":
            return log_probs.argmax(-1)
        return draw(log_probs.exp(), chance[:, :, None])[:, :, 0]


class ScheduledSamplingBlueprint(ObjectiveBlueprint):
    """Read, more and more often, what the model would have said instead of the truth."""

    kind: Literal["scheduled_sampling"] = "scheduled_sampling"
    objective: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised after the tokens that are read"""
    truth: DecayBlueprint = InverseSigmoidDecay()
    """how the probability falls that a token is the true one"""
    choice: Choice = "sampled"
    """what takes its place: a token drawn as the model would have it, or the likeliest"""
    passes: int = Field(1, ge=1)
    """passes to find out; n of them are exact for the first n tokens"""

    def build(self, task: Task) -> ScheduledSampling:
        """Make it.

        Raises:
            Problem: nothing within it reads a true target.
        """
        if not self.objective.reads:
            raise Problem(
                "scheduled_sampling changes which tokens of the true targets are read, and "
                f"{self.objective.kind} alone reads answers of the model's own instead; take that "
                "without it, or write it inside, as the objective beside",
                "train.objective",
            )
        inner = self.objective.build(task)
        return ScheduledSampling(inner, self.truth, self.choice, self.passes)
