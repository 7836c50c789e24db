"""How far self-attention looks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from transduce.blueprint import Part
from transduce.nn.cache import KV, FixedKV, GrowingKV, hide, padding_bias
from transduce.nn.multihead import Block, everything
from transduce.nn.positions import Positions
from transduce.nn.ragged import ragged
from transduce.sequences import positions

Place = TypeVar("Place", int, Tensor)


class Span(ABC):
    """Divides positions into blocks of queries with the keys that they look at."""

    @abstractmethod
    def blocks(
        self, mask: Bool[Tensor, "B S"], places: Positions, dtype: torch.dtype
    ) -> list[Block]:
        """Return the blocks of whole sources, in order, for all layers."""


class PastSpan(Span):
    """Divides targets too, which are read a few tokens at a time and look at none after them."""

    @abstractmethod
    def onwards(
        self,
        past: KV,
        length: Int[Tensor, "N"],
        tokens: int,
        places: Positions,
        dtype: torch.dtype,
    ) -> list[Block]:
        """Return the blocks of the next tokens, behind the first ``length`` of each row."""

    @abstractmethod
    def oldest(self, place: int) -> int:
        """Return the first place that is seen from ``place`` or from any place after it."""


class SpanBlueprint(Part):
    """Slot for how far the self-attention of an encoder looks."""

    @abstractmethod
    def build(self) -> Span:
        """Make it."""


class PastSpanBlueprint(SpanBlueprint):
    """Slot for how far back the self-attention of a decoder looks; an encoder's can do as much."""

    @abstractmethod
    def build(self) -> PastSpan:
        """Make it."""


class FullSpan(PastSpan):
    """All positions look at all."""

    def blocks(
        self, mask: Bool[Tensor, "B S"], places: Positions, dtype: torch.dtype
    ) -> list[Block]:
        """Return one block."""
        every, hidden = positions(mask.shape[1], mask.device), padding_bias(mask, dtype)
        bias = places.bias(hidden, every, every)
        only = ragged(mask, of_queries=True) if bias is hidden else None
        return everything(bias, ragged=only)

    def onwards(
        self,
        past: KV,
        length: Int[Tensor, "N"],
        tokens: int,
        places: Positions,
        dtype: torch.dtype,
    ) -> list[Block]:
        """Return one block."""
        hidden = past.causal(length, tokens, dtype)
        bias = places.bias(hidden, past.place(length, tokens), past.near(length, tokens))
        # With nothing read before, what is hidden is what comes later.
        first = isinstance(past, GrowingKV) and past.slots(0) == 0
        causal = first and hidden is not None and bias is hidden
        return everything(bias, causal=causal)

    def oldest(self, _: int) -> int:
        """Return the first place of all."""
        return 0


class FullSpanBlueprint(PastSpanBlueprint):
    """At the whole source, or the whole past (Vaswani 2017)."""

    kind: Literal["full"] = "full"

    def build(self) -> PastSpan:
        """Make it."""
        return FullSpan()


@dataclass(frozen=True)
class WindowSpan(Span):
    """Positions look at their neighbours; the first few look, and are looked at, everywhere."""

    reach: int
    everywhere: int
    size: int  # queries of a block: many look at hardly more than they must, few at a time are slow

    def blocks(
        self, mask: Bool[Tensor, "B S"], places: Positions, dtype: torch.dtype
    ) -> list[Block]:
        """Return a block for the first few, and one for each stretch of the rest."""
        total, every = mask.shape[1], positions(mask.shape[1], mask.device)
        first = min(self.everywhere, total)
        found = []
        if first:
            bias = places.bias(padding_bias(mask, dtype), every[:, :first], every)
            found.append(Block(slice(0, first), slice(None), bias))
        for start in range(first, total, self.size):
            stop = min(start + self.size, total)
            near = every[0, max(first, start - self.reach) : stop + self.reach]
            keys = torch.cat([every[0, :first], near])
            far = self._far(every[0, start:stop], keys)
            hidden = hide(~mask[:, None, keys] | far, dtype)[:, None]
            bias = places.bias(hidden, every[:, start:stop], keys[None])
            found.append(Block(slice(start, stop), keys, bias))
        return found

    def _far(self, queries: Int[Tensor, "T"], keys: Int[Tensor, "S"]) -> Bool[Tensor, "T S"]:
        """True where a key is out of reach."""
        return ((keys - queries[:, None]).abs() > self.reach) & (keys >= self.everywhere)


class WindowSpanBlueprint(SpanBlueprint):
    """At neighbours alone, so that time and memory grow with the length and not with its square
    (Beltagy 2020; keys of global positions are projected like all others)."""

    kind: Literal["window"] = "window"
    reach: int = Field(64, ge=1)
    """neighbours on each side"""
    everywhere: int = Field(0, ge=0)
    """so many first positions look at all, and all look at them (global attention)"""

    def build(self) -> Span:
        """Make it."""
        return WindowSpan(self.reach, self.everywhere, max(self.reach, 64))


class Piece(NamedTuple):
    """Neighbours in one segment, the keys that they may look at, and how many are remembered."""

    queries: slice
    keys: slice
    remembered: int


@dataclass(frozen=True)
class SegmentSpan(PastSpan):
    """Positions look at their own segment and at a memory of what stands before it.

    A memory is what the attention of a layer read there, without gradient. It depends on nothing
    that comes later, so a layer reads all segments before the next layer does, with the values and
    gradients of all layers reading one segment after another. What a decoder read in an earlier
    call it remembers as keys and values, whose maps get no gradient either.
    """

    length: int
    memory: int

    def blocks(
        self, mask: Bool[Tensor, "B S"], places: Positions, dtype: torch.dtype
    ) -> list[Block]:
        """Return a block for each segment."""
        every, found = positions(mask.shape[1], mask.device), []
        for piece in self._pieces(0, 0, mask.shape[1]):
            hidden = padding_bias(mask[:, piece.keys], dtype)
            bias = places.bias(hidden, every[:, piece.queries], every[:, piece.keys])
            found.append(Block(piece.queries, piece.keys, bias, piece.remembered))
        return found

    def onwards(
        self,
        past: KV,
        length: Int[Tensor, "N"],
        tokens: int,
        places: Positions,
        dtype: torch.dtype,
    ) -> list[Block]:
        """Return a block for each segment, or one for all where rows may have read unequally much.

        The one passes gradients on: rows like these are for decoding alone.
        """
        if isinstance(past, FixedKV) or past.ragged:
            pieces = [Piece(slice(None), slice(None), 0)]
        else:
            stop = past.slots(tokens)
            pieces = self._pieces(past.first, stop - tokens, stop)
        place, near, found = past.place(length, tokens), past.near(length, tokens), []
        for piece in pieces:
            here, there = place[:, piece.queries], near[:, piece.keys]
            key, query = there[:, None], here[..., None]
            hidden = hide((key > query) | (key < self._seen(query).clamp(min=0)), dtype)[:, None]
            bias = places.bias(hidden, here, there)
            found.append(Block(piece.queries, piece.keys, bias, piece.remembered))
        return found

    def oldest(self, place: int) -> int:
        """Return where the memory of its segment begins."""
        return max(0, self._seen(place))

    def _seen(self, place: Place) -> Place:
        return place // self.length * self.length - self.memory

    def _pieces(self, first: int, start: int, stop: int) -> list[Piece]:
        """Cut the places from ``start`` to ``stop`` at borders; keys begin at ``first``."""
        found, begin = [], start
        while begin < stop:
            border, oldest = begin // self.length * self.length, self.oldest(begin)
            end = min(border + self.length, stop)
            keys = slice(oldest - first, end - first)
            found.append(Piece(slice(begin - start, end - start), keys, border - oldest))
            begin = end
        return found


class SegmentSpanBlueprint(PastSpanBlueprint):
    """At their own segment and a memory of what stands before it, which gets no gradient; with each
    layer the reach grows by the memory (Transformer-XL: Dai 2019)."""

    kind: Literal["segments"] = "segments"
    length: int = Field(128, ge=1)
    """positions of a segment"""
    memory: int = Field(128, ge=0)
    """so many positions before a segment are remembered; 0: none (Al-Rfou 2019)"""

    def build(self) -> PastSpan:
        """Make it."""
        return SegmentSpan(self.length, self.memory)
