"""Outputs that are not too short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor

from transduce.search.constrain.constraint import EOS, Constraint, ConstraintBlueprint, Target
from transduce.sequences import Sequences


class Missing(NamedTuple):
    """How many tokens are missing; one more where not even the beginning was read."""

    tokens: Int[Tensor, "N"]


class MinimumLength(Constraint[Missing]):
    """Forbids eos before the ``tokens``-th token, and before ``ratio`` times the source's length.

    Neither side counts its eos.
    """

    def __init__(self, tokens: int = 0, ratio: float = 0.0) -> None:
        self.tokens, self.ratio = tokens, ratio

    def begin(self, sources: Mapping[str, Sequences]) -> Missing:
        """Return the state before anything is read, one row for every source."""
        lengths = next(iter(sources.values())).lengths
        relative = ((lengths - 1) * self.ratio).ceil().long()
        return Missing(relative.clamp(min=self.tokens) + 1)

    def read(self, tokens: Int[Tensor, "N"], state: Missing) -> Missing:
        """Read one token in every row."""
        return Missing((state.tokens - 1).clamp(min=0))

    def weigh(self, log_probs: Float[Tensor, "N V"], state: Missing) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for eos where it is too early."""
        changed = log_probs.clone()
        changed[:, EOS].masked_fill_(state.tokens > 0, -torch.inf)
        return changed


class MinimumLengthBlueprint(ConstraintBlueprint):
    """The output may not end before it has so many symbols.

    Where it may not have as many, because of the limit of its length, it has no end.
    """

    kind: Literal["minimum_length"] = "minimum_length"
    tokens: NonNegativeInt = 0
    """symbols, the end not counted"""
    ratio: NonNegativeFloat = 0.0
    """symbols for each symbol of the source"""

    def build(self, target: Target) -> MinimumLength:
        """Make the constraint."""
        return MinimumLength(self.tokens, self.ratio)
