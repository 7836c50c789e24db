"""Randomness as a function: the same numbers give the same noise, on any device, in any batch."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transduce.search.top import CHUNK

STEP: Final = 0x9E3779B97F4A7C15 - 2**64  # as signed numbers of 64 bits, which wrap around
FIRST: Final = 0xBF58476D1CE4E5B9 - 2**64
SECOND: Final = 0x94D049BB133111EB - 2**64


def uniform(seed: int, *parts: Int[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Return a number between 0 and 1, both excluded, for every combination of the parts.

    It is 64 bits mixed by SplitMix64 (Steele et al. 2014), of which 52 are used.
    """
    state = _mix(torch.full_like(parts[0], seed))
    for part in parts:
        state = _mix(state + part)
    return _shift(state, 12).double().add_(0.5).mul_(2.0**-52)


def gumbel(seed: int, *parts: Int[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Return standard Gumbel noise for every combination of the parts."""
    return uniform(seed, *parts).log_().neg_().log_().neg_()


def draw(probs: Float[Tensor, "A R V"], chance: Float[Tensor, "A R S"]) -> Int[Tensor, "A R S"]:
    """Return the ids at which the sum of the probabilities passes S chances from 0 to 1."""
    # First the chunk, then the place in it: a sum is found several times faster than all sums.
    symbols = probs.shape[2]
    chunks = F.pad(probs, (0, -symbols % CHUNK)).view(*probs.shape[:2], -1, CHUNK)
    sums = chunks.sum(3).double()
    reached = sums.cumsum(2)
    goal = chance * reached[:, :, -1:]
    chunk = torch.searchsorted(reached, goal, right=True).clamp(max=sums.shape[2] - 1)
    inside = chunks.gather(2, chunk[..., None].expand(-1, -1, -1, CHUNK)).double().cumsum(3)
    share = 1 - (reached.gather(2, chunk) - goal) / sums.gather(2, chunk)
    goal = share[..., None] * inside[..., -1:]
    place = torch.searchsorted(inside, goal, right=True)[..., 0].clamp(max=CHUNK - 1)
    return (chunk * CHUNK + place).clamp(max=symbols - 1)


def _mix(values: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    # In place: tables of this size are written faster where one has just been.
    values = values + STEP
    values.bitwise_xor_(_shift(values, 30)).mul_(FIRST)
    values.bitwise_xor_(_shift(values, 27)).mul_(SECOND)
    return values.bitwise_xor_(_shift(values, 31))


def _shift(values: Int[Tensor, "*shape"], places: int) -> Int[Tensor, "*shape"]:
    """Shift to the right as if there were no sign."""
    return (values >> places).bitwise_and_((1 << (64 - places)) - 1)
