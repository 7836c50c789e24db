"""Recurrent decoders: LSTM or GRU over the target, joined to the source by any connection."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor, nn

from transduce.models.interface import Decoder, DecoderBlueprint, Memory, Readout
from transduce.nn.attend import ConnectionBlueprint, GeneralAttentionBlueprint, Prepared, Trail
from transduce.nn.dropout import Dropout
from transduce.nn.layers import TokenTable
from transduce.nn.recurrent import Cell, Hidden, Stack
from transduce.nn.tap import Tap


class RecurrentDecoderBlueprint(DecoderBlueprint):
    """LSTM or GRU layers over the target."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Cell = "lstm"
    """kind of unit"""
    connection: ConnectionBlueprint = GeneralAttentionBlueprint()
    """how the decoder sees the source"""
    embedding: int = Field(256, ge=1)
    """width of a token's vector"""
    width: int = Field(512, ge=1)
    """width of a layer's output"""
    layers: int = Field(1, ge=1)
    """number of layers"""
    dropout: float = Field(0.2, ge=0, lt=1)
    """share of values dropped while training"""

    def build(self, vocabulary: int, memory: int) -> RecurrentDecoder:
        """Make the decoder."""
        return RecurrentDecoder(self, vocabulary, memory)


class RecurrentState(NamedTuple):
    """The layers' state, and the source as the connection sees it."""

    hidden: Hidden
    source: Prepared
    trail: Trail


class RecurrentDecoder(Decoder[RecurrentState]):
    """Begins from the source's summary; attends after the recurrence (Luong 2015).

    As no step waits for the attention of the one before, the layers run over all tokens at once and
    the attention of all positions is one matrix product.
    """

    def __init__(self, blueprint: RecurrentDecoderBlueprint, vocabulary: int, memory: int) -> None:
        super().__init__()
        width = blueprint.width
        self.width, self.depth = width, blueprint.layers
        self.embedding = TokenTable(vocabulary, blueprint.embedding)
        self.stack = Stack(
            blueprint.cell, blueprint.embedding, width, blueprint.layers, blueprint.dropout
        )
        self.bridge = nn.Linear(memory, blueprint.layers * width)
        self.connection = blueprint.connection.build(width, memory)
        context = self.connection.context_width(memory)
        self.combine = nn.Linear(width + context, width) if context else None
        self.attention = Tap("source attention")
        self.dropout = Dropout(blueprint.dropout)

    def start(self, memory: Memory, width: int = 1, capacity: int | None = None) -> RecurrentState:
        """Bridge the summary into every layer; the state never grows, whatever the capacity."""
        bank = memory["source"]
        first = torch.tanh(self.bridge(bank.summary)).view(len(bank.summary), self.depth, -1)
        first = first.repeat_interleave(width, 0)
        cell = torch.zeros_like(first) if self.stack.cell == "lstm" else first[:, :, :0]
        prepared = self.connection.prepare(bank.states, bank.mask, bank.summary)
        trail = self.connection.begin(prepared, len(first))
        return RecurrentState(Hidden(first, cell), prepared, trail)

    def extend(
        self, tokens: Int[Tensor, "N T"], state: RecurrentState
    ) -> tuple[Readout, RecurrentState]:
        """Read T more tokens in every row."""
        states, hidden = self.stack(self.dropout(self.embedding(tokens)), state.hidden)
        states = self.dropout(states)
        context, attention, trail = self.connection(states, state.source, state.trail)
        if attention is not None:
            attention = self.attention(attention)
        features = states
        if self.combine is not None:
            features = torch.tanh(self.combine(torch.cat([states, context.to(states.dtype)], -1)))
        return Readout(self.dropout(features), attention), RecurrentState(
            hidden, state.source, trail
        )
