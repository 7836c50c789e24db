"""Sampling: answers drawn from the model's distribution."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from transduce.asking import free
from transduce.search.hypotheses import Hypotheses
from transduce.search.noise import draw, uniform
from transduce.search.paths import Paths, best_first, empty, longer
from transduce.search.stepwise import Move, StepwiseSearch
from transduce.search.top import refuse_nan
from transduce.search.truncate import Truncation
from transduce.sequences import positions


class SampleNotes(NamedTuple):
    """What sampling knows of its sources."""

    keys: Int[Tensor, "A"]
    paths: Paths


class Sample(StepwiseSearch):
    """Draws ``samples`` answers for each source, token by token, likeliest first; twins may occur.

    Probabilities are raised to the power 1 / ``temperature``; each truncation then sees what those
    before it left, made to sum to 1. Scores are log-probabilities of the model itself. What is
    drawn is a function of the seed, the key of the source and the number of the sample.
    """

    distinct: ClassVar[bool] = False
    stays: ClassVar[bool] = True

    kind: Literal["sample"] = "sample"
    samples: PositiveInt = 1
    """answers drawn for each source"""
    temperature: PositiveFloat = 1.0
    """below 1 likely tokens are drawn even more often, above 1 less"""
    truncations: tuple[Truncation, ...] = ()
    """what bars unlikely tokens, one after the other"""
    seed: int = Field(0, ge=0, lt=2**63)
    """another one draws other answers"""

    @property
    def rows(self) -> int:
        return self.samples

    @property
    def branches(self) -> int:
        return 1

    def with_answers(self, count: int) -> Sample:
        """Return the search so that it draws at least ``count`` answers."""
        return self.model_copy(update={"samples": max(self.samples, count)})

    def begin(self, limit: Int[Tensor, "A"], keys: Int[Tensor, "A"]) -> SampleNotes:
        """Return empty notes."""
        return SampleNotes(keys, empty(limit, self.samples))

    def drawn_from(self, log_probs: Float[Tensor, "*shape V"]) -> Float[Tensor, "*shape V"]:
        """Return the probabilities with which tokens are drawn."""
        # Where no token is possible any may be drawn: its log-probability says that it is not.
        best = log_probs.float().amax(-1, keepdim=True)
        if free(best):
            refuse_nan(best)
        found = (log_probs.float() - best).div_(self.temperature).flatten(0, -2)
        dead = best.flatten() == -torch.inf
        if not free(best) or dead.any():
            found.masked_fill_(dead[:, None], 0.0)
        for truncation in self.truncations:
            barred = ~truncation.keep(found.log_softmax(1))
            found = found.masked_fill(barred, -torch.inf)
        return found.softmax(1).view(log_probs.shape)

    def branch(
        self, notes: SampleNotes, log_probs: Float[Tensor, "A R V"]
    ) -> tuple[Float[Tensor, "A K 1"], Int[Tensor, "A K 1"]]:
        """Draw a token for each row."""
        keys, step = notes.keys[:, None], notes.paths.step[:, None]
        chance = uniform(self.seed, keys, step, positions(self.rows, keys.device))
        sources, read, _ = log_probs.shape
        ids = draw(self.drawn_from(log_probs), chance.view(sources, read, -1))
        shape = sources, self.rows, 1
        return log_probs.gather(2, ids).float().view(shape), ids.view(shape)

    def weigh(
        self, notes: SampleNotes, values: Float[Tensor, "A K 1"], ids: Int[Tensor, "A K 1"]
    ) -> Move:
        """Append what was drawn."""
        paths = longer(notes.paths, ids[:, :, 0], values[:, :, 0], self.eos)
        own = positions(self.rows, ids.device).expand(len(ids), -1)
        return Move(SampleNotes(notes.keys, paths), paths.going.any(1), own, ids[:, :, 0])

    def collect(self, notes: SampleNotes) -> Hypotheses:
        """Return what was drawn, the likeliest first."""
        paths = notes.paths
        return best_first(paths.taken, paths.length, paths.finished, self.eos)
