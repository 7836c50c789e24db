"""Randomness as a function: the same numbers give the same noise, on any device, in any batch."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEP: Final = 0x9E3779B97F4A7C15 - 2**64  # as signed numbers of 64 bits, which wrap around
FIRST: Final = 0xBF58476D1CE4E5B9 - 2**64
SECOND: Final = 0x94D049BB133111EB - 2**64


def uniform(*parts: Int[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Return a number between 0 and 1, both excluded, for every combination of the parts.

    It is 64 bits mixed by SplitMix64 (Steele et al. 2014), of which 52 are used.
    """
    state = torch.zeros_like(parts[0])
    for part in parts:
        state = _mix(state + part)
    return (_shift(state, 12).double() + 0.5) * 2.0**-52


def gumbel(*parts: Int[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Return standard Gumbel noise for every combination of the parts."""
    return -torch.log(-torch.log(uniform(*parts)))


def _mix(values: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    values = values + STEP
    values = (values ^ _shift(values, 30)) * FIRST
    values = (values ^ _shift(values, 27)) * SECOND
    values = values ^ _shift(values, 31)
    return values


def _shift(values: Int[Tensor, "*shape"], places: int) -> Int[Tensor, "*shape"]:
    """Shift to the right as if there were no sign."""
    return (values >> places) & (2 ** (64 - places) - 1)
