"""Greedy search: always the best next token."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.search.hypotheses import Hypotheses
from transduce.search.paths import Paths, best_first, empty, longer
from transduce.search.stepwise import Move, StepwiseSearch


class Greedy(StepwiseSearch):
    """Takes the best next token until it is eos; of equal ones the lowest id."""

    kind: Literal["greedy"] = "greedy"

    @property
    def rows(self) -> int:
        return 1

    @property
    def branches(self) -> int:
        return 1

    def begin(self, limit: Int[Tensor, "A"], keys: Int[Tensor, "A"]) -> Paths:
        """Return empty notes."""
        return empty(limit, 1)

    def weigh(
        self, notes: Paths, values: Float[Tensor, "A 1 1"], ids: Int[Tensor, "A 1 1"]
    ) -> Move:
        """Take the best token, if any is possible."""
        token = ids[:, 0]
        paths = longer(notes, token, values[:, 0], self.eos)
        return Move(paths, paths.going[:, 0], torch.zeros_like(token), token)

    def collect(self, notes: Paths) -> Hypotheses:
        """Return one hypothesis for each source, scored by its log-probability."""
        return best_first(notes.taken, notes.length, notes.finished, self.eos)
