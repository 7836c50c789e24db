"""The Transformer encoder (Vaswani 2017), pre- or post-norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from transduce.models.interface import Bank, Encoder, EncoderBlueprint
from transduce.models.layers import LayersBlueprint
from transduce.nn.dropout import Dropout
from transduce.nn.layers import TokenTable
from transduce.nn.multihead import Block
from transduce.nn.positions import InHeads
from transduce.nn.recompute import recomputable
from transduce.nn.recurrent import Bidirectional
from transduce.nn.span import FullSpanBlueprint, Span, SpanBlueprint
from transduce.sequences import Sequences, positions


class TransformerEncoderBlueprint(EncoderBlueprint, LayersBlueprint):
    """Self-attention layers over the source."""

    kind: Literal["transformer"] = "transformer"
    span: SpanBlueprint = FullSpanBlueprint()
    """how far self-attention looks"""

    def build(self, vocabulary: int) -> TransformerEncoder:
        """Make the encoder."""
        return TransformerEncoder(self, vocabulary, self.span.build())


class TransformerEncoder(Encoder):
    """Embeds and lets all positions look at one another; its summary is the mean.

    A ``reader`` (recurrent layers) reads the vectors before they do.
    """

    def __init__(
        self,
        blueprint: LayersBlueprint,
        vocabulary: int,
        span: Span,
        reader: Bidirectional | None = None,
    ) -> None:
        super().__init__()
        self.width = blueprint.width
        self.embedding = TokenTable(vocabulary, blueprint.width)
        self.span, self.reader = span, reader
        self.positions = blueprint.make_positions("model.encoder", one_way=False)
        self.longest = self.positions.longest
        self.dropout = Dropout(blueprint.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(blueprint, self.positions.in_heads()) for _ in range(blueprint.layers)
        )
        self.norm = blueprint.final_norm()

    def forward(self, source: Sequences) -> Bank:
        """Read the sources.

        Raises:
            Problem: one is longer than there are positions.
        """
        self.positions.admit(source.size, source.lengths)
        mask = source.mask()
        place = positions(source.size, source.data.device)
        x = self.embedding(source.data)
        if self.reader is not None:
            x = self.reader(self.dropout(x), source.lengths)
        x = self.dropout(self.positions(x, place))
        blocks = self.span.blocks(mask, self.positions, x.dtype)
        for layer in self.layers:
            x = recomputable(layer)(x, blocks)
        x = self.norm(x)
        summary = (x * mask[..., None]).sum(1) / source.lengths[:, None]
        return Bank(x, mask, summary)


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward layer."""

    def __init__(self, blueprint: LayersBlueprint, in_heads: InHeads | None = None) -> None:
        super().__init__()
        self.self_attention = blueprint.self_attention(in_heads)
        self.feed_forward = blueprint.feed_forward()
        self.around_self, self.around_feed = blueprint.residual(), blueprint.residual()

    def forward(self, x: Float[Tensor, "B S D"], blocks: Sequence[Block]) -> Float[Tensor, "B S D"]:
        """Apply both."""
        x = self.around_self.leave(x, self.self_attention(self.around_self.enter(x), blocks))
        return self.around_feed.leave(x, self.feed_forward(self.around_feed.enter(x)))
