"""Beam search with room for those hypotheses that have said more of what is asked for."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt, model_validator
from torch import Tensor

from transduce.search.beam import Beam, BeamNotes
from transduce.search.constrain.constraint import requirements
from transduce.search.hypotheses import Hypotheses, LengthNormalisation, PowerNormalisation
from transduce.search.scorer import Scorer
from transduce.search.stepwise import Move, StepwiseSearch
from transduce.search.top import rank
from transduce.sequences import positions


class BankNotes(NamedTuple):
    """What a banked beam search knows of its sources."""

    beam: BeamNotes
    banks: Int[Tensor, "A K M"]  # of the tokens that may follow: how much was said behind each


class BankedBeam(StepwiseSearch):
    """A beam search in which required words find their places (after Post & Vilar 2018).

    Continuations belong to banks by how many tokens of what is required they have said, and the
    banks choose in turn, each its likeliest, until the beam is full. (Post & Vilar give each bank
    a fixed share and hand on what it leaves.) Tokens that bring a hypothesis on are always looked
    at. Where nothing is required it is a beam search.
    """

    kind: Literal["banked_beam"] = "banked_beam"
    width: PositiveInt = 10
    """hypotheses of each source that live side by side"""
    n_best: PositiveInt = 1
    """hypotheses of each source to return"""
    normalisation: LengthNormalisation = PowerNormalisation()
    """how finished hypotheses of different lengths compare"""

    @model_validator(mode="after")
    def _check(self) -> BankedBeam:
        if self.n_best > self.width:
            raise ValueError(f"n_best {self.n_best} is more than width {self.width}; raise width")
        return self

    @property
    def rows(self) -> int:
        """Number of rows for each source."""
        return self.width

    @property
    def branches(self) -> int:
        """Number of tokens after each row that it wants to see beside those that are wanted."""
        return self.width + 1

    @property
    def _beam(self) -> Beam:
        """The search that goes on with what the banks have chosen."""
        return Beam(width=self.width, n_best=self.n_best, normalisation=self.normalisation)

    def with_answers(self, count: int) -> BankedBeam:
        """Return the search so that it returns at least ``count``, wider if it has to be."""
        n_best = max(self.n_best, count)
        return self.model_copy(update={"width": max(self.width, count), "n_best": n_best})

    def begin(self, limit: Int[Tensor, "A"], keys: Int[Tensor, "A"]) -> BankNotes:
        """Return empty notes; of the rows only the first lives."""
        return BankNotes(self._beam.begin(limit, keys), limit.new_zeros(len(limit), self.width, 0))

    def consider(
        self, scorer: Scorer, state: Any, notes: BankNotes, log_probs: Float[Tensor, "A R V"]
    ) -> tuple[BankNotes, Float[Tensor, "A R M"], Int[Tensor, "A R M"]]:
        """Return the best tokens and those that are wanted, and note the banks of all."""
        sources, rows, size = log_probs.shape
        values, ids = (part.flatten(0, 1) for part in self.branch(notes, log_probs))
        asked = requirements(scorer, state)
        wanted = torch.cat([ids[:, :0], *(one.wanted() for one in asked)], 1)
        known = (wanted > 0) & (wanted < size)
        said = log_probs.flatten(0, 1).gather(1, wanted.masked_fill(~known, 0)).float()
        first = ids.shape[1]
        ids = torch.cat([ids, wanted], 1)
        again = (ids[:, :, None] == ids[:, None]).tril(-1).any(2)[:, first:]
        values = torch.cat([values, said.masked_fill(~known | again, -torch.inf)], 1)
        banks = sum((one.after(ids) for one in asked), torch.zeros_like(ids))
        shape = sources, rows, -1
        noted = banks.view(shape).expand(-1, self.width, -1).contiguous()
        return notes._replace(banks=noted), values.view(shape), ids.view(shape)

    def weigh(
        self, notes: BankNotes, values: Float[Tensor, "A K M"], ids: Int[Tensor, "A K M"]
    ) -> Move:
        """Let the banks choose, and go on as a beam search does."""
        total = (notes.beam.live[:, :, None] + values).flatten(1)
        best, order = rank(total)
        banks = notes.banks.flatten(1).gather(1, order)
        # How many of its bank stand before each; behind all others what is impossible.
        turn = (banks[:, :, None] == banks[:, None]).tril(-1).sum(2)
        turn = turn.masked_fill(best == -torch.inf, total.shape[1])
        order = order.gather(1, rank(-turn)[1])
        ended = ids.flatten(1).gather(1, order) == self.eos
        place = positions(total.shape[1], total.device)
        chosen = torch.where(ended, place < self.width, (~ended).cumsum(1) <= self.width)
        lost = torch.zeros_like(chosen).scatter(1, order, ~chosen).view_as(values)
        left = values.masked_fill(lost, -torch.inf)
        move = self._beam.weigh(notes.beam, left, ids, chosen=True)
        return move._replace(notes=BankNotes(move.notes, notes.banks))

    def collect(self, notes: BankNotes) -> Hypotheses:
        """Return what the beam search found."""
        return self._beam.collect(notes.beam)
