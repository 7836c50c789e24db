"""Stochastic beam search: answers drawn without replacement."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor

from transduce.asking import free
from transduce.search.hypotheses import Hypotheses
from transduce.search.noise import draw, gumbel, uniform
from transduce.search.paths import Paths, best_first, empty, longer, moved
from transduce.search.stepwise import Move, StepwiseSearch
from transduce.search.top import rank, refuse_nan, top
from transduce.sequences import positions


class StochasticNotes(NamedTuple):
    """What a stochastic beam search knows of its sources."""

    keys: Int[Tensor, "A"]
    log_probs: Float[Tensor, "A K"]
    perturbed: Float[Tensor, "A K"]  # log-probabilities plus Gumbel noise; -inf: an empty row
    paths: Paths


class StochasticBeam(StepwiseSearch):
    """Draws ``width`` different answers for each source from the model's distribution.

    They are drawn without replacement, the one drawn first first: every string has its
    log-probability plus Gumbel noise, and the ``width`` highest are found without looking at the
    others, because the highest below a prefix is drawn before what is below it (Kool et al. 2019).
    That sum is the score. What is drawn is a function of the seed and the key of the source.
    """

    kind: Literal["stochastic_beam"] = "stochastic_beam"
    width: PositiveInt = 5
    """answers drawn for each source"""
    seed: int = Field(0, ge=0, lt=2**63)
    """another one draws other answers"""

    @property
    def rows(self) -> int:
        return self.width

    @property
    def branches(self) -> int:
        return self.width

    def with_answers(self, count: int) -> StochasticBeam:
        """Return the search so that it draws at least ``count`` answers."""
        return self.model_copy(update={"width": max(self.width, count)})

    def begin(self, limit: Int[Tensor, "A"], keys: Int[Tensor, "A"]) -> StochasticNotes:
        """Return empty notes; of the rows only the first lives."""
        paths = empty(limit, self.width)
        first = positions(self.width, limit.device) == 0
        log_probs = torch.zeros(paths.length.shape, device=limit.device)
        log_probs = log_probs.masked_fill(~first, -torch.inf)
        perturbed = log_probs + gumbel(self.seed, keys)[:, None].float()
        return StochasticNotes(
            keys, log_probs, perturbed, paths._replace(going=first & paths.going)
        )

    def _noise(self, notes: StochasticNotes, ids: Int[Tensor, "A R M"]) -> Float[Tensor, "A R M"]:
        """Return the noise of these tokens behind each row."""
        keys, step = notes.keys[:, None, None], notes.paths.step[:, None, None]
        row = positions(ids.shape[1], ids.device)[..., None]
        return gumbel(self.seed, keys, step, row, ids).float()

    def branch(
        self, notes: StochasticNotes, log_probs: Float[Tensor, "A R V"]
    ) -> tuple[Float[Tensor, "A R M"], Int[Tensor, "A R M"]]:
        """Draw the next token of each row, then those that would be next but for it."""
        log_probs = log_probs.float()
        if free(log_probs):
            refuse_nan(log_probs.amax(2))
        every = positions(log_probs.shape[2], log_probs.device).expand(*log_probs.shape[:2], -1)
        keys, step = notes.keys[:, None], notes.paths.step[:, None]
        chance = uniform(self.seed, keys, step, positions(every.shape[1], every.device))
        first = draw(log_probs.softmax(2), chance[:, :, None])
        noisy = (log_probs + self._noise(notes, every)).scatter(2, first, torch.inf)
        ids = top(noisy.flatten(0, 1), self.branches)[1].view(*noisy.shape[:2], -1)
        return log_probs.gather(2, ids), ids

    def weigh(
        self, notes: StochasticNotes, values: Float[Tensor, "A K M"], ids: Int[Tensor, "A K M"]
    ) -> Move:
        """Keep the highest among the continuations and what has ended."""
        paths, branches = notes.paths, ids.shape[2]
        # The first continuation is as high as what it continues. The others lie below: of an
        # exponential variable exp(-x) it is known that it exceeds exp(-highest), and it has no
        # memory.
        highest = notes.perturbed[:, :, None]
        drawn = notes.log_probs[:, :, None] + values + self._noise(notes, ids)
        drawn = -torch.logaddexp(-highest, -drawn)
        drawn[:, :, :1] = highest.masked_fill(values[:, :, :1] == -torch.inf, -torch.inf)
        drawn = drawn.masked_fill(~paths.going[:, :, None], -torch.inf).flatten(1)
        still = notes.perturbed.masked_fill(paths.going, -torch.inf)
        perturbed, order = rank(torch.cat([drawn, still], 1))
        perturbed, order = perturbed[:, : self.width], order[:, : self.width]

        # Where all ran into dead ends, what came before is kept.
        lost, own = perturbed[:, :1] == -torch.inf, positions(self.width, ids.device)
        appended = (order < drawn.shape[1]) & (perturbed > -torch.inf)
        stayed = (order - drawn.shape[1]).where(perturbed > -torch.inf, own)
        parents = (order // branches).where(appended, stayed)
        chosen = order.where(appended, 0)
        value = values.flatten(1).gather(1, chosen).masked_fill(~appended, -torch.inf)
        token = ids.flatten(1).gather(1, chosen)
        total = notes.log_probs.gather(1, parents)
        notes = StochasticNotes(
            notes.keys,
            torch.where(appended, total + value, total),
            torch.where(lost, notes.perturbed, perturbed),
            longer(moved(paths, parents), token, value, self.eos),
        )
        return Move(notes, notes.paths.going.any(1), parents, token)

    def collect(self, notes: StochasticNotes) -> Hypotheses:
        """Return what was drawn, the first first."""
        nothing = notes.perturbed == -torch.inf
        length = notes.paths.length.masked_fill(nothing, 0)
        finished = notes.paths.finished & ~nothing
        return best_first(notes.paths.taken, length, finished, self.eos, notes.perturbed)
