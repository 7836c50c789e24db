"""Attention over rows of unequal length that computes nothing for padding, on a GPU.

A kernel that is told what to hide reads a table of it, and computes what it hides. The one for rows
of unequal length (FlashAttention: Dao 2022) gets real positions alone, all rows behind one another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

HALVES: Final = (torch.bfloat16, torch.float16)
WIDEST: Final = 256  # dimensions of a head that the kernel knows


def serves(x: Tensor) -> bool:
    """Return whether there is such a kernel for training with ``x`` where it is."""
    return (
        x.is_cuda and torch.is_grad_enabled() and torch.cuda.get_device_capability(x.device)[0] >= 8
    )


@dataclass(frozen=True)
class Real:
    """Which positions of padded rows are real."""

    places: Int[Tensor, "M"]  # of these among all, row after row
    starts: Int[Tensor, "_"]  # how many stand before each row, and how many there are
    size: int  # positions of a row, padding included

    def of(self, x: Float[Tensor, "B H S d"]) -> Float[Tensor, "M H d"]:
        """Return what stands at real positions."""
        return x.transpose(1, 2).flatten(0, 1).index_select(0, self.places)


@dataclass(frozen=True)
class Ragged:
    """Queries and keys of unequal length in each row; without ``queries`` all of these are real."""

    keys: Real
    queries: Real | None = None

    def fits(self, query: Tensor, keys: Tensor, values: Tensor) -> bool:
        """Return whether the kernel knows such numbers and heads."""
        types, deep = {query.dtype, keys.dtype, values.dtype}, query.shape[3]
        return len(types) == 1 and query.dtype in HALVES and deep <= WIDEST and deep % 8 == 0

    def attend(
        self,
        query: Float[Tensor, "B H T d"],
        keys: Float[Tensor, "B G S d"],
        values: Float[Tensor, "B G S d"],
    ) -> Float[Tensor, "B H T d"]:
        """Return mixed values; 0 where a query is padding."""
        from torch.nn.attention.varlen import varlen_attn

        rows, heads, size, deep = query.shape
        real, asked = self.queries, query.transpose(1, 2).flatten(0, 1)
        if real is None:
            starts = torch.arange(rows + 1, dtype=torch.int32, device=query.device) * size
        else:
            starts, asked = real.starts, asked.index_select(0, real.places)
        mixed = varlen_attn(
            asked,
            self.keys.of(keys),
            self.keys.of(values),
            starts,
            self.keys.starts,
            size,
            self.keys.size,
            enable_gqa=heads != keys.shape[1],
        )
        assert isinstance(mixed, Tensor)
        if real is not None:
            mixed = mixed.new_zeros(rows * size, heads, deep).index_copy(0, real.places, mixed)
        return mixed.view(rows, size, heads, deep).transpose(1, 2)


def ragged(mask: Bool[Tensor, "B S"], of_queries: bool) -> Ragged | None:
    """Return the real keys, ``of_queries`` the same of these, or None: no kernel, no need to know.

    It asks the device how many are real, once.
    """
    if not serves(mask):
        return None
    starts = F.pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
    real = Real(mask.flatten().nonzero()[:, 0], starts, mask.shape[1])
    return Ragged(real, real if of_queries else None)
