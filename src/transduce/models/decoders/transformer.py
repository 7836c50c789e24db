"""The Transformer decoder (Vaswani 2017), pre- or post-norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transduce.models.interface import Decoder, DecoderBlueprint, Memory, Readout
from transduce.models.layers import LayersBlueprint
from transduce.nn.cache import KV, CrossKV, FixedKV, GrowingKV, padding_bias, settled
from transduce.nn.dropout import Dropout
from transduce.nn.layers import TokenTable
from transduce.nn.multihead import Block
from transduce.nn.positions import InHeads
from transduce.nn.ragged import Ragged, ragged
from transduce.nn.recompute import recomputable
from transduce.nn.span import FullSpanBlueprint, PastSpanBlueprint
from transduce.tree import PerSource


class TransformerDecoderBlueprint(DecoderBlueprint, LayersBlueprint):
    """Self-attention over the target so far and attention to the source."""

    kind: Literal["transformer"] = "transformer"
    span: PastSpanBlueprint = FullSpanBlueprint()
    """how far back self-attention looks"""

    def build(self, vocabulary: int, memory: int) -> TransformerDecoder:
        """Make the decoder."""
        return TransformerDecoder(self, vocabulary, memory)


@dataclass(frozen=True)
class Source(PerSource):
    """The source as the layers see it: keys and values for each, and which positions are real."""

    layers: tuple[CrossKV | None, ...]  # None: there is no source
    mask: Bool[Tensor, "B S"]


class TransformerState(NamedTuple):
    """All that changes while decoding, and the source as the layers see it."""

    length: Int[Tensor, "N"]
    past: tuple[KV, ...]
    source: Source


class TransformerDecoder(Decoder[TransformerState]):
    """Reads any number of tokens at a time against caches of what was read before.

    Where there is no source its layers have no attention to one.
    """

    def __init__(
        self, blueprint: TransformerDecoderBlueprint, vocabulary: int, memory: int
    ) -> None:
        super().__init__()
        self.width, self.deep = blueprint.width, blueprint.width // blueprint.heads
        self.key_value_heads = blueprint.key_value_heads or blueprint.heads
        self.reads = memory > 0
        self.embedding = TokenTable(vocabulary, blueprint.width)
        self.span = blueprint.span.build()
        self.positions = blueprint.make_positions("model.decoder", one_way=True)
        self.longest = self.positions.longest
        self.dropout = Dropout(blueprint.dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(blueprint, memory, self.positions.in_heads())
            for _ in range(blueprint.layers)
        )
        self.norm = blueprint.final_norm()

    def start(
        self, memory: Memory, width: int = 1, capacity: int | None = None
    ) -> TransformerState:
        """Project the source for every layer and begin with empty caches."""
        bank = memory["source"]
        rows = len(bank.states) * width
        shape = (rows, self.key_value_heads, capacity or 0, self.deep)
        kind = GrowingKV if capacity is None else FixedKV
        past = tuple(
            kind(bank.states.new_zeros(shape), bank.states.new_zeros(shape)) for _ in self.layers
        )
        cross = tuple(cast(DecoderLayer, layer).prepare(bank.states) for layer in self.layers)
        length = torch.zeros(rows, dtype=torch.long, device=bank.states.device)
        return TransformerState(length, past, Source(cross, bank.mask.clone()))

    def extend(
        self, tokens: Int[Tensor, "N T"], state: TransformerState
    ) -> tuple[Readout, TransformerState]:
        """Read T more tokens in every row.

        Raises:
            Problem: they are more than there are positions.
        """
        caches = settled(state.past, state.length)
        count, first = tokens.shape[1], caches[0]
        slots, length = first.slots(count), state.length + count
        self.positions.admit(slots, length)
        place = first.place(state.length, count)
        x = self.dropout(self.positions(self.embedding(tokens), place))
        blocks = self.span.onwards(first, state.length, count, self.positions, x.dtype)
        padding = padding_bias(state.source.mask, x.dtype)
        only = ragged(state.source.mask, of_queries=False) if self.reads else None
        past, oldest = [], self.span.oldest(slots)
        for layer, before, source in zip(self.layers, caches, state.source.layers, strict=True):
            x, after = recomputable(layer)(x, before, state.length, blocks, source, padding, only)
            past.append(after.forget(oldest))
        new = TransformerState(length, tuple(past), state.source)
        return Readout(self.norm(x)), new


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, then a feed-forward layer."""

    def __init__(
        self, blueprint: LayersBlueprint, memory: int, in_heads: InHeads | None = None
    ) -> None:
        super().__init__()
        self.self_attention = blueprint.self_attention(in_heads)
        self.reads = memory > 0
        if self.reads:
            self.cross_attention = blueprint.cross_attention(memory)
        self.feed_forward = blueprint.feed_forward()
        self.around_self = blueprint.residual()
        if self.reads:
            self.around_cross = blueprint.residual()
        self.around_feed = blueprint.residual()

    def prepare(self, states: Float[Tensor, "B S D"]) -> CrossKV | None:
        """Project the source, if there is one."""
        return self.cross_attention.prepare(states) if self.reads else None

    def forward(
        self,
        x: Float[Tensor, "N T D"],
        past: KV,
        length: Int[Tensor, "N"],
        blocks: Sequence[Block],
        source: CrossKV | None,
        padding: Float[Tensor, "B 1 1 S"],
        only: Ragged | None = None,
    ) -> tuple[Float[Tensor, "N T D"], KV]:
        """Apply all of them to T more tokens."""
        seen, past = self.self_attention.extend(self.around_self.enter(x), past, length, blocks)
        x = self.around_self.leave(x, seen)
        if source is not None:
            found = self.cross_attention(self.around_cross.enter(x), source, padding, only)
            x = self.around_cross.leave(x, found)
        return self.around_feed.leave(x, self.feed_forward(self.around_feed.enter(x))), past
