"""How the layers of a Transformer know where its symbols stand.

A kind may act in three places: on the vectors that enter the first layer, on the scores of all
layers, and inside the attention of each layer. Places are counted from 0 in every row; whatever
reads a few tokens at a time says where they stand, so reading in parts is reading at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.nn.layers import TokenTable
from transduce.problem import Problem


@dataclass(frozen=True)
class Stack:
    """What positions have to know of the layers that they serve."""

    width: int
    heads: int
    one_way: bool  # a decoder, whose positions look at none after them
    where: str  # the key of the layers, for errors


class Relation(ABC):
    """What the distances between the positions of one layer add to its attention."""

    @abstractmethod
    def scores(
        self, query: Float[Tensor, "N H T d"], keys: Float[Tensor, "N G S d"]
    ) -> Float[Tensor, "N H T S"]:
        """Return what is added to the scores of (already scaled) queries and these keys."""

    def values(
        self, mixed: Float[Tensor, "N H T d"], weights: Float[Tensor, "N H T S"]
    ) -> Float[Tensor, "N H T d"]:
        """Return the mixture of values with what distances add to it: as it is, nothing."""
        return mixed


class InHeads(nn.Module):
    """What positions do inside the attention of one layer, in either of two ways."""

    def turn(
        self, x: Float[Tensor, "N H T d"], place: Int[Tensor, "_ T"]
    ) -> Float[Tensor, "N H T d"]:
        """Mark queries or keys with the places at which they stand."""
        return x

    def relation(self, place: Int[Tensor, "_ T"], keys: Int[Tensor, "_ S"]) -> Relation | None:
        """Relate queries at ``place`` to the ``keys`` at their places."""
        return None


class Positions(nn.Module):
    """Positions of one stack of layers: as it is, none at all."""

    longest: int | None = None  # most positions there are; None: any number

    def admit(self, size: int, lengths: Int[Tensor, "N"]) -> None:
        """Refuse rows of these lengths, at most ``size``, if there are not so many positions."""

    def forward(
        self, x: Float[Tensor, "N T D"], place: Int[Tensor, "_ T"]
    ) -> Float[Tensor, "N T D"]:
        """Mark the vectors that enter the first layer."""
        return x

    def bias(
        self,
        hidden: Float[Tensor, "_ 1 _ S"] | None,
        place: Int[Tensor, "_ T"],
        keys: Int[Tensor, "_ S"],
    ) -> Float[Tensor, "_ _ _ S"] | None:
        """Return what is added to the scores of every layer, ``hidden`` (a mask) included."""
        return hidden

    def in_heads(self) -> InHeads | None:
        """Make what the attention of one layer needs, if it does."""
        return None


class PositionsBlueprint(Part):
    """Slot for the positions of a Transformer."""

    @abstractmethod
    def build(self, stack: Stack) -> Positions:
        """Make them."""


class NoPositionsBlueprint(PositionsBlueprint):
    """None: a decoder can tell places by what it may look at (Haviv 2022); an encoder cannot."""

    kind: Literal["none"] = "none"

    def build(self, stack: Stack) -> Positions:
        """Make them."""
        return Positions()


def frequencies(width: int, steps: int) -> Float[Tensor, "_"]:
    """Return the frequency of each sine and cosine of ``width``, falling to 1 / 10000 in steps."""
    return torch.exp(torch.arange(width // 2) * (-math.log(10000.0) / steps))


class Sinusoid(Positions):
    """Sines and cosines of falling frequency, 1 / 10000^(i / steps), without parameters."""

    def __init__(self, width: int, steps: int | None = None, first: int = 0) -> None:
        super().__init__()
        frequency = frequencies(width, steps or width // 2)
        self.register_buffer("frequency", frequency, persistent=False)
        self.frequency: Tensor
        self.first = first

    def forward(
        self, x: Float[Tensor, "N T D"], place: Int[Tensor, "_ T"]
    ) -> Float[Tensor, "N T D"]:
        """Add to vectors the positions at which they stand."""
        angle = (place + self.first)[..., None] * self.frequency
        # sines first, cosines after them: which dimension holds which is arbitrary
        return x + torch.cat([angle.sin(), angle.cos()], -1)


class SinusoidalBlueprint(PositionsBlueprint):
    """Sines and cosines, the slowest of nearly 10000 positions (Vaswani 2017)."""

    kind: Literal["sinusoidal"] = "sinusoidal"

    def build(self, stack: Stack) -> Positions:
        """Make them."""
        return Sinusoid(stack.width)


class Tensor2TensorBlueprint(PositionsBlueprint):
    """Sines and cosines, the slowest of exactly 10000 (tensor2tensor, fairseq, OpenNMT-tf)."""

    kind: Literal["tensor2tensor"] = "tensor2tensor"
    first: int = Field(0, ge=0)
    """number of the first position (tensor2tensor: 0, OpenNMT-tf: 1, fairseq: 2)"""

    def build(self, stack: Stack) -> Positions:
        """Make them.

        Raises:
            Problem: there is one frequency only.
        """
        if stack.width < 4:
            what = f"a width of {stack.width} has one frequency, and two are the least; widen it"
            raise Problem(what, f"{stack.where}.width")
        return Sinusoid(stack.width, stack.width // 2 - 1, self.first)


class Learned(Positions):
    """A table of vectors, one for each place."""

    longest: int

    def __init__(self, longest: int, width: int, where: str) -> None:
        super().__init__()
        self.longest, self.where = longest, where
        self.table = TokenTable(longest, width)

    def admit(self, size: int, lengths: Int[Tensor, "N"]) -> None:
        """Refuse what is longer than the table.

        Raises:
            Problem: a row is.
        """
        # asking a GPU for the lengths would make it wait
        if size > self.longest and (found := int(lengths.max())) > self.longest:
            raise Problem(
                f"{found} symbols are more than the {self.longest} positions learned; shorten the "
                "text, or train with more positions",
                self.where,
            )

    def forward(
        self, x: Float[Tensor, "N T D"], place: Int[Tensor, "_ T"]
    ) -> Float[Tensor, "N T D"]:
        """Add the vectors of the places; beyond the last one is padding alone."""
        added: Tensor = x + self.table(place.clamp(max=self.longest - 1))
        return added


class LearnedPositionsBlueprint(PositionsBlueprint):
    """A vector learned for each of so many places (Gehring 2017); nothing longer is read."""

    kind: Literal["learned"] = "learned"
    longest: int = Field(512, ge=1)
    """number of places, those of the symbols that begin or end included"""

    def build(self, stack: Stack) -> Positions:
        """Make them."""
        return Learned(self.longest, stack.width, f"{stack.where}.positions.longest")
