"""How far the self-attention of an encoder looks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from transduce.blueprint import Part
from transduce.nn.multihead import Block, everything, hide, padding_bias
from transduce.nn.positions import Positions
from transduce.sequences import positions


class Span(ABC):
    """Divides the positions of sources into blocks of queries with the keys that they look at."""

    @abstractmethod
    def blocks(
        self, mask: Bool[Tensor, "B S"], places: Positions, dtype: torch.dtype
    ) -> list[Block]:
        """Return the blocks, in order, for all layers."""


class SpanBlueprint(Part):
    """Slot for how far self-attention looks."""

    @abstractmethod
    def build(self) -> Span:
        """Make it."""


class FullSpan(Span):
    """All positions look at all."""

    def blocks(
        self, mask: Bool[Tensor, "B S"], places: Positions, dtype: torch.dtype
    ) -> list[Block]:
        """Return one block."""
        every = positions(mask.shape[1], mask.device)
        bias = places.bias(padding_bias(mask, dtype), every, every)
        assert bias is not None
        return everything(bias)


class FullSpanBlueprint(SpanBlueprint):
    """At the whole source (Vaswani 2017)."""

    kind: Literal["full"] = "full"

    def build(self) -> Span:
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
            found.append(Block(slice(0, first), None, bias))
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
