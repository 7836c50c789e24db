"""Attention that only walks on: each target position begins where the one before it stopped."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from transduce.nn.attend.connection import Connection, ConnectionBlueprint, Prepared, Trail, fold
from transduce.nn.attend.scores import AdditiveAttention


def walk(before: Float[Tensor, "N S"], stop: Float[Tensor, "N S"]) -> Float[Tensor, "N S"]:
    """Return where a walk stops that began somewhere in ``before`` (Raffel 2017).

    q_j = (1 - p_(j-1)) q_(j-1) + a_j is the chance to come by position j, a being that of having
    begun there and p that of stopping there; p q is the answer. The paper solves it by dividing by
    products of 1 - p, which underflow in long sources. Here sums over 1, 2, 4, ... positions are
    made of each other: nothing is divided, and what underflows is as good as zero.
    """
    coming, passing = before, F.pad(1 - stop[:, :-1], (1, 0))
    reach = 1
    while reach < before.shape[1]:
        coming = coming + passing * F.pad(coming[:, :-reach], (reach, 0))
        passing = passing * F.pad(passing[:, :-reach], (reach, 0))
        reach *= 2
    return stop * coming


class MonotonicAttention(AdditiveAttention):
    """Hard monotonic attention (Raffel 2017).

    It looks at one position after the other, from where it stopped before, and stops where the
    energy g v / |v| . tanh(U s + W h) + r is above zero. Behind the end it sees nothing any more.
    While training, the weights are the chances to stop, sigmoids of the energies under noise, so
    that energies far from zero pay.
    """

    def __init__(self, query: int, memory: int, width: int, noise: float, bias: float) -> None:
        super().__init__(query, memory, width)
        self.noise = noise
        self.gain = nn.Parameter(torch.tensor(width**-0.5))
        self.bias = nn.Parameter(torch.tensor(bias))

    def begin(self, source: Prepared, rows: int) -> Trail:
        """Return that it stands at the first position."""
        exact = torch.promote_types(source.values.dtype, torch.float32)
        past = source.values.new_zeros(rows, source.values.shape[1], dtype=exact)
        past[:, 0] = 1
        return Trail(past=past)

    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Compute the energies, in at least 32 bits."""
        products = super().score(query, keys)
        exact = products.to(torch.promote_types(products.dtype, torch.float32))
        gain: Tensor = self.gain / torch.linalg.vector_norm(self.energy.weight)
        return exact * gain + self.bias

    def stops(
        self, energies: Float[Tensor, "B Q S"], mask: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B Q S"]:
        """Return the chance to stop at each position for who comes by; 0 or 1 but in training."""
        if self.training:
            noise = self.noise * torch.randn_like(energies)
            chances = torch.sigmoid(energies + noise)
        else:
            soft = torch.sigmoid(energies)
            # the slope is that of the chance, for whoever asks what an answer depends on
            chances = (energies > 0).to(soft.dtype) + (soft - soft.detach())
        return chances.masked_fill(~mask[:, None], 0)

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared, trail: Trail
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N T S"], Trail]:
        """Walk on once for each position; weights add up to one, or less behind the end."""
        (rows, tokens), (sources, size) = query.shape[:2], source.mask.shape
        past, keys = trail.past, source.keys
        assert past is not None
        assert keys is not None
        energies = self.score(fold(query, sources), keys)
        found = []
        for stop in self.stops(energies, source.mask).view(rows, tokens, size).unbind(1):
            past = walk(past, stop)
            found.append(past)
        weights = torch.stack(found, 1)
        context = torch.bmm(fold(weights, sources), source.values.to(weights.dtype))
        return context.view(rows, tokens, -1), weights, Trail(past=past)


class MonotonicAttentionBlueprint(ConnectionBlueprint):
    """Stops at one position after the other, never going back."""

    kind: Literal["monotonic"] = "monotonic"
    width: int | None = Field(None, ge=1)
    """units of the hidden layer; as wide as the decoder if left out"""
    noise: float = Field(1.0, ge=0)
    """deviation of what is added to the energies while training, so that choices become clear"""
    bias: float = 0.0
    """where the energies begin; 0 walks on by about a position for each token, a higher one less"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return MonotonicAttention(query, memory, self.width or query, self.noise, self.bias)
