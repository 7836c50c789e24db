"""The Transformer encoder (Vaswani 2017), pre- or post-norm."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transduce.models.interface import Bank, Encoder, EncoderBlueprint
from transduce.nn.dropout import Dropout
from transduce.nn.layers import (
    FeedForward,
    FinalNorm,
    NormOrder,
    Residual,
    Sinusoid,
    TokenTable,
)
from transduce.nn.multihead import SelfAttention, padding_bias
from transduce.problem import Problem
from transduce.sequences import Sequences, positions


class TransformerEncoderBlueprint(EncoderBlueprint):
    """Self-attention layers over the source."""

    kind: Literal["transformer"] = "transformer"
    width: int = Field(256, ge=2, multiple_of=2)
    """width of every position"""
    layers: int = Field(4, ge=1)
    """number of layers"""
    heads: int = Field(4, ge=1)
    """attention heads; must divide the width"""
    inner: int = Field(1024, ge=1)
    """width of the feed-forward layers"""
    norm: NormOrder = "pre"
    """normalise before each sub-layer (trains more easily) or after it"""
    dropout: float = Field(0.1, ge=0, lt=1)
    """share of values dropped while training"""

    def build(self, vocabulary: int) -> TransformerEncoder:
        """Make the encoder."""
        check_heads(self.width, self.heads, "model.encoder.heads")
        return TransformerEncoder(self, vocabulary)


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


class TransformerEncoder(Encoder):
    """Embeds and lets all positions look at one another; its summary is the mean."""

    def __init__(self, blueprint: TransformerEncoderBlueprint, vocabulary: int) -> None:
        super().__init__()
        self.width = blueprint.width
        self.embedding = TokenTable(vocabulary, blueprint.width)
        self.place = Sinusoid(blueprint.width)
        self.dropout = Dropout(blueprint.dropout)
        self.layers = nn.ModuleList(EncoderLayer(blueprint) for _ in range(blueprint.layers))
        self.norm = FinalNorm(blueprint.width, blueprint.norm)

    def forward(self, source: Sequences) -> Bank:
        """Read the sources."""
        mask = source.mask()
        place = positions(source.size, source.data.device)
        x = self.dropout(self.place(self.embedding(source.data), place))
        bias = padding_bias(mask, x.dtype)
        for layer in self.layers:
            x = layer(x, bias)
        x = self.norm(x)
        summary = (x * mask[..., None]).sum(1) / source.lengths[:, None]
        return Bank(x, mask, summary)


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward layer."""

    def __init__(self, blueprint: TransformerEncoderBlueprint) -> None:
        super().__init__()
        width, dropout = blueprint.width, blueprint.dropout
        self.self_attention = SelfAttention(width, blueprint.heads)
        self.feed_forward = FeedForward(width, blueprint.inner, dropout)
        self.around_self = Residual(width, blueprint.norm, dropout)
        self.around_feed = Residual(width, blueprint.norm, dropout)

    def forward(
        self, x: Float[Tensor, "B S D"], bias: Float[Tensor, "B 1 1 S"]
    ) -> Float[Tensor, "B S D"]:
        """Apply both."""
        x = self.around_self.leave(x, self.self_attention(self.around_self.enter(x), bias))
        return self.around_feed.leave(x, self.feed_forward(self.around_feed.enter(x)))
