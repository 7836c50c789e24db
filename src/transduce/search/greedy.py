"""Greedy search: always the best next token."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce.search.hypotheses import Hypotheses
from transduce.search.stepwise import STEPS, Move, StepwiseSearch, with_room
from transduce.sequences import positions


class Chosen(NamedTuple):
    """The tokens taken; what lies behind the length means nothing."""

    tokens: Int[Tensor, "A T"]
    log_probs: Float[Tensor, "A T"]


class GreedyNotes(NamedTuple):
    """What greedy search knows of its sources."""

    length: Int[Tensor, "A"]
    limit: Int[Tensor, "A"]
    finished: Bool[Tensor, "A"]
    chosen: Chosen


class Greedy(StepwiseSearch):
    """Takes the best next token until it is eos; of equal ones the lowest id."""

    kind: Literal["greedy"] = "greedy"

    @property
    def rows(self) -> int:
        """Number of rows for each source."""
        return 1

    @property
    def branches(self) -> int:
        """Number of tokens after each row that it wants to see."""
        return 1

    def begin(self, limit: Int[Tensor, "A"]) -> GreedyNotes:
        """Return empty notes."""
        zero, tokens = torch.zeros_like(limit), limit.new_zeros(len(limit), STEPS)
        return GreedyNotes(zero, limit, zero.bool(), Chosen(tokens, tokens.float()))

    def weigh(
        self, notes: GreedyNotes, values: Float[Tensor, "A 1 1"], ids: Int[Tensor, "A 1 1"]
    ) -> Move:
        """Take the best token, if any is possible."""
        value, token = values[:, 0], ids[:, 0]
        possible = value[:, 0] > -torch.inf
        chosen = with_room(notes.chosen, notes.length)
        chosen.tokens.scatter_(1, notes.length[:, None], token)
        chosen.log_probs.scatter_(1, notes.length[:, None], value)
        length, ended = notes.length + possible, possible & (token[:, 0] == self.eos)
        going = possible & ~ended & (length < notes.limit)
        notes = notes._replace(length=length, finished=ended, chosen=chosen)
        return Move(notes, going, torch.zeros_like(token), token)

    def collect(self, notes: GreedyNotes) -> Hypotheses:
        """Return one hypothesis for each source, scored by its log-probability."""
        size = int(notes.length.max())
        beyond = positions(size, notes.length.device) >= notes.length[:, None]
        token_log_probs = notes.chosen.log_probs[:, :size].masked_fill(beyond, 0.0)
        total = token_log_probs.sum(1).masked_fill(notes.length == 0, -torch.inf)
        return Hypotheses(
            tokens=notes.chosen.tokens[:, None, :size].masked_fill(beyond[:, None], self.eos),
            lengths=notes.length[:, None],
            finished=notes.finished[:, None],
            scores=total[:, None],
            log_probs=total[:, None],
            token_log_probs=token_log_probs[:, None],
        )
