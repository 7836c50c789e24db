"""What the layers of Transformer encoders and decoders have in common: their settings."""

from __future__ import annotations

from pydantic import Field

from transduce.blueprint import Blueprint
from transduce.nn.layers import (
    Activation,
    FeedForward,
    FinalNorm,
    Normalisation,
    NormOrder,
    Residual,
)
from transduce.nn.multihead import CrossAttention, SelfAttention
from transduce.nn.positions import (
    InHeads,
    Positions,
    PositionsBlueprint,
    SinusoidalBlueprint,
    Stack,
)
from transduce.nn.similarity import DotBlueprint, SimilarityBlueprint
from transduce.problem import Problem


class LayersBlueprint(Blueprint):
    """Layers of attention and feed-forward."""

    width: int = Field(256, ge=2, multiple_of=2)
    """width of every position"""
    layers: int = Field(4, ge=1)
    """number of layers"""
    heads: int = Field(4, ge=1)
    """attention heads; must divide the width"""
    key_value_heads: int | None = Field(None, ge=1)
    """heads of keys and values, each shared by as many heads; as many as heads if left out"""
    similarity: SimilarityBlueprint = DotBlueprint()
    """how a query and a key are compared"""
    inner: int = Field(1024, ge=1)
    """width of the feed-forward layers"""
    activation: Activation = "relu"
    """what stands between their two maps; swiglu has half as many weights again"""
    norm: NormOrder = "pre"
    """normalise before each sub-layer (trains more easily) or after it"""
    normalisation: Normalisation = "layer"
    """by mean and variance, or by the root mean square alone (a little cheaper)"""
    positions: PositionsBlueprint = SinusoidalBlueprint()
    """how the layers know where a symbol stands"""
    dropout: float = Field(0.1, ge=0, lt=1)
    """share of values dropped while training"""

    def self_attention(self, in_heads: InHeads | None) -> SelfAttention:
        """Make the self-attention of one layer."""
        sizes = self.width, self.heads, self.key_value_heads
        return SelfAttention(*sizes, self.similarity.build(), in_heads)

    def cross_attention(self, memory: int) -> CrossAttention:
        """Make the attention of one layer to a source of width ``memory``."""
        sizes = self.width, self.heads, memory, self.key_value_heads
        return CrossAttention(*sizes, self.similarity.build())

    def feed_forward(self) -> FeedForward:
        """Make the feed-forward part of one layer."""
        return FeedForward(self.width, self.inner, self.dropout, self.activation)

    def residual(self) -> Residual:
        """Make the frame of one sub-layer."""
        return Residual(self.width, self.norm, self.dropout, self.normalisation)

    def final_norm(self) -> FinalNorm:
        """Make what closes the layers."""
        return FinalNorm(self.width, self.norm, self.normalisation)

    def make_positions(self, where: str, one_way: bool) -> Positions:
        """Make the positions; ``where`` is the key of these layers.

        Raises:
            Problem: sizes that do not fit together.
        """
        check_heads(self.width, self.heads, f"{where}.heads")
        check_groups(self.heads, self.key_value_heads or self.heads, f"{where}.key_value_heads")
        return self.positions.build(Stack(self.width, self.heads, one_way, where))


def check_heads(width: int, heads: int, where: str) -> None:
    """Refuse a number of heads that does not divide the width.

    Raises:
        Problem: it does not.
    """
    if width % heads:
        near = max(n for n in range(1, heads + 1) if width % n == 0)
        raise Problem(
            f"{heads} heads do not divide a width of {width}; take {near} heads, or a width of "
            f"{width // heads * heads or heads}",
            where,
        )


def check_groups(heads: int, groups: int, where: str) -> None:
    """Refuse heads that cannot share keys and values evenly.

    Raises:
        Problem: they cannot.
    """
    if heads % groups:
        fitting = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
        what = f"{heads} heads cannot share {groups} heads of keys and values evenly"
        raise Problem(f"{what}; take one of {fitting}", where)
