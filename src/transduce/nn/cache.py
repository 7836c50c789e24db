"""Keys and values of what attention has read, so that it can go on a few tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce.asking import due
from transduce.sequences import positions
from transduce.tree import Joins, PerSource


def own(keys: Float[Tensor, "N H S d"], values: Float[Tensor, "N H S d"]) -> tuple[Tensor, Tensor]:
    """Return copies laid out for matrix products: no two tensors of a state may share memory."""
    layout = torch.contiguous_format
    return keys.clone(memory_format=layout), values.clone(memory_format=layout)


def padding_bias(mask: Bool[Tensor, "B S"], dtype: torch.dtype) -> Float[Tensor, "B 1 1 S"]:
    """Return what is added to the scores so that padding gets no weight."""
    return hide(~mask, dtype)[:, None, None]


def hide(hidden: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """Return 0 where a position is seen and, where not, too little for any weight.

    It is within float16, twice, as infinity would make a weight of no number where all is hidden.
    """
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -3e4)


@dataclass(frozen=True)
class GrowingKV(Joins):
    """Keys and values of the tokens read so far; extending makes a new one (persistent).

    Rows that have read different numbers of tokens end together: the shorter have room in front.
    """

    keys: Float[Tensor, "N H P d"]
    values: Float[Tensor, "N H P d"]
    # place of the first of them (in the longest row): older ones are forgotten; -1: not yet known
    first: int = 0
    ragged: bool = False  # whether any row has room in front

    def append(
        self, keys: Float[Tensor, "N H T d"], values: Float[Tensor, "N H T d"], _: Int[Tensor, "N"]
    ) -> GrowingKV:
        """Return the cache with T more tokens."""
        if self.keys.shape[2] == 0:
            keys, values = own(keys, values)
        else:
            keys = torch.cat([self.keys, keys], 2)
            values = torch.cat([self.values, values], 2)
        return GrowingKV(keys, values, self.first, self.ragged)

    def join(self, others: Sequence[GrowingKV]) -> GrowingKV:
        """Return the rows of all; it is to be ``settled`` before it is used."""
        parts = [self, *others]
        sizes = {(part.first, part.keys.shape[2]) for part in parts}
        longest = max(size for _, size in sizes)

        def stack(columns: list[Tensor]) -> Tensor:
            return torch.cat([F.pad(x, (0, 0, longest - x.shape[2], 0)) for x in columns])

        return GrowingKV(
            stack([part.keys for part in parts]),
            stack([part.values for part in parts]),
            self.first if all(first == self.first for first, _ in sizes) else -1,
            len(sizes) > 1 or any(part.ragged for part in parts),
        )

    def settle(self, shortest: int, longest: int) -> GrowingKV:
        """Return the cache of rows that have read so many tokens, without room that none needs."""
        kept = min(longest, self.keys.shape[2])
        keys, values = (x[:, :, x.shape[2] - kept :] for x in (self.keys, self.values))
        return GrowingKV(keys, values, longest - kept, shortest < longest)

    def forget(self, oldest: int) -> GrowingKV:
        """Return the cache without what stands before the place ``oldest``."""
        if oldest <= self.first or self.ragged:
            return self
        kept = slice(oldest - self.first, None)
        return GrowingKV(*own(self.keys[:, :, kept], self.values[:, :, kept]), oldest)

    def place(self, length: Int[Tensor, "N"], tokens: int) -> Int[Tensor, "_ T"]:
        """Return where the next tokens stand."""
        return self.near(length, tokens)[:, self.keys.shape[2] :]

    def near(self, length: Int[Tensor, "N"], tokens: int) -> Int[Tensor, "_ P"]:
        """Return where all keys stand that the next tokens look at; room is before the first."""
        near = positions(self.slots(tokens), length.device)[:, self.first :]
        return near - (self.slots(0) - length)[:, None] if self.ragged else near

    def slots(self, tokens: int) -> int:
        """Return the number of places, from 0 on, that the next tokens make full."""
        return self.first + self.keys.shape[2] + tokens

    def causal(
        self, length: Int[Tensor, "N"], tokens: int, dtype: torch.dtype
    ) -> Float[Tensor, "_ 1 T P"] | None:
        """Return the bias that hides later tokens, and room; None: all are seen."""
        if tokens == 1 and not self.ragged:
            return None
        near = self.near(length, tokens)[:, None]
        place = near[..., self.keys.shape[2] :].transpose(1, 2)
        return hide((near > place) | (near < 0), dtype)[:, None]


@dataclass(frozen=True)
class FixedKV:
    """Buffers of fixed capacity, written in place: no shape changes, each state serves once."""

    keys: Float[Tensor, "N H C d"]
    values: Float[Tensor, "N H C d"]

    def append(
        self,
        keys: Float[Tensor, "N H T d"],
        values: Float[Tensor, "N H T d"],
        length: Int[Tensor, "N"],
    ) -> FixedKV:
        """Write T more tokens behind the first ``length``."""
        place = self.place(length, keys.shape[2])
        index = place[:, None, :, None].expand_as(keys)
        return FixedKV(
            self.keys.scatter_(2, index, keys.to(self.keys.dtype)),
            self.values.scatter_(2, index, values.to(self.values.dtype)),
        )

    def forget(self, _: int) -> FixedKV:
        """Return the cache as it is: its capacity bounds it already."""
        return self

    def place(self, length: Int[Tensor, "N"], tokens: int) -> Int[Tensor, "N T"]:
        """Return where the next tokens stand, behind the first ``length`` of each row."""
        return length[:, None] + positions(tokens, length.device)

    def near(self, length: Int[Tensor, "N"], _: int) -> Int[Tensor, "1 C"]:
        """Return where all keys stand that the next tokens look at, written or not."""
        return positions(self.keys.shape[2], length.device)

    def slots(self, _: int) -> int:
        """Return the number of places that there can be."""
        return self.keys.shape[2]

    def causal(
        self, length: Int[Tensor, "N"], tokens: int, dtype: torch.dtype
    ) -> Float[Tensor, "N 1 T C"]:
        """Return the bias that hides later tokens and what is not written yet."""
        place = self.place(length, tokens)
        ahead = torch.arange(self.keys.shape[2], device=length.device) > place[..., None]
        return hide(ahead, dtype)[:, None]


KV = GrowingKV | FixedKV


def settled(caches: Sequence[KV], length: Int[Tensor, "N"]) -> list[KV]:
    """Return the caches of all layers for rows that have read so many tokens.

    Where it is not free to ask how many, room that none needs is found once in a few steps.
    """
    first = caches[0]
    if isinstance(first, FixedKV) or not first.ragged:
        return list(caches)
    if first.first >= 0 and not due(length, first.slots(0)):
        return list(caches)
    shortest, longest = torch.stack(length.aminmax()).tolist()
    growing = (cache for cache in caches if isinstance(cache, GrowingKV))
    return [cache.settle(shortest, longest) for cache in growing]


@dataclass(frozen=True)
class CrossKV(PerSource):
    """Keys and values of the source, computed once and shared by all its hypotheses."""

    keys: Float[Tensor, "B H S d"]
    values: Float[Tensor, "B H S d"]
