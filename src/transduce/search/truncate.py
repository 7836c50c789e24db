"""Truncations: which tokens may be sampled at all."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor

from transduce.asking import free
from transduce.blueprint import Part
from transduce.search.top import rank, top

FEW: Final = 256  # tokens that nearly always hold the mass; to rank all takes several times longer


class Truncation(Part):
    """Slot for what bars the unlikely tokens of a distribution."""

    @abstractmethod
    def keep(self, log_probs: Float[Tensor, "N V"]) -> Bool[Tensor, "N V"]:
        """Return which tokens may be sampled, at least one; the log-probabilities are normal."""


class TopK(Truncation):
    """Keeps the likeliest tokens (Fan et al. 2018); of equal ones the lowest ids."""

    kind: Literal["top_k"] = "top_k"
    count: PositiveInt = 50
    """how many"""

    def keep(self, log_probs: Float[Tensor, "N V"]) -> Bool[Tensor, "N V"]:
        ids = top(log_probs, self.count)[1]
        return torch.zeros_like(log_probs, dtype=torch.bool).scatter(1, ids, True)


class TopP(Truncation):
    """Keeps the nucleus: the fewest tokens that hold ``mass`` (Holtzman et al. 2020)."""

    kind: Literal["top_p"] = "top_p"
    mass: float = Field(0.9, gt=0, lt=1)
    """probability of the nucleus, at least"""

    def keep(self, log_probs: Float[Tensor, "N V"]) -> Bool[Tensor, "N V"]:
        return _fewest(log_probs, log_probs, self.mass)


class Typical(Truncation):
    """Keeps the fewest tokens that hold ``mass``, those of about average surprise first.

    They are taken by how far their surprise is from its expectation, the entropy; so the likeliest
    token may be barred (Meister et al. 2023).
    """

    kind: Literal["typical"] = "typical"
    mass: float = Field(0.9, gt=0, lt=1)
    """probability of what is kept, at least"""

    def keep(self, log_probs: Float[Tensor, "N V"]) -> Bool[Tensor, "N V"]:
        entropy = torch.special.entr(log_probs.exp()).sum(1, keepdim=True)
        return _fewest(log_probs, -(log_probs + entropy).abs(), self.mass)


class MinP(Truncation):
    """Keeps tokens at least ``ratio`` times as likely as the likeliest (Nguyen et al. 2024)."""

    kind: Literal["min_p"] = "min_p"
    ratio: float = Field(0.05, gt=0, le=1)
    """the least share of the highest probability"""

    def keep(self, log_probs: Float[Tensor, "N V"]) -> Bool[Tensor, "N V"]:
        probs = log_probs.exp()
        return probs >= self.ratio * probs.amax(1, keepdim=True)


class Epsilon(Truncation):
    """Keeps tokens of more than ``least`` probability (Hewitt et al. 2022), or else the best."""

    kind: Literal["epsilon"] = "epsilon"
    least: float = Field(3e-4, gt=0, lt=1)
    """a token as improbable as this is barred"""

    def keep(self, log_probs: Float[Tensor, "N V"]) -> Bool[Tensor, "N V"]:
        best = TopK(count=1).keep(log_probs)
        return best | (log_probs.exp() > self.least)


def _fewest(
    log_probs: Float[Tensor, "N V"], order: Float[Tensor, "N V"], mass: float
) -> Bool[Tensor, "N V"]:
    """Take tokens, the highest in ``order`` first, until they hold ``mass``."""
    # Whether a few are enough is known only to who asks; who does not ranks them all.
    ids = top(order, FEW)[1] if free(order) else rank(order)[1]
    probs = log_probs.gather(1, ids).exp()
    reached = probs.cumsum(1)
    kept = torch.zeros_like(order, dtype=torch.bool).scatter(1, ids, reached - probs < mass)
    if ids.shape[1] == order.shape[1]:
        return kept
    rows = (reached[:, -1] < mass).nonzero()[:, 0]
    if len(rows):
        ids = rank(order[rows])[1]
        probs = log_probs[rows].gather(1, ids).exp()
        before = probs.cumsum(1) - probs
        kept[rows] = torch.zeros_like(kept[rows]).scatter(1, ids, before < mass)
    return kept
