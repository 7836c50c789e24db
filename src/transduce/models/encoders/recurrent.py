"""Recurrent encoders: one way or both, stacked."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from transduce.models.interface import Bank, Encoder, EncoderBlueprint
from transduce.nn.layers import TokenTable
from transduce.nn.recurrent import Bidirectional, Stack, Style
from transduce.nn.steps import Cell
from transduce.problem import Problem
from transduce.sequences import Sequences, reverse


class RecurrentEncoderBlueprint(EncoderBlueprint):
    """Recurrent layers over the source."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Cell = "lstm"
    """kind of unit; tanh and relu are plain ones"""
    embedding: int = Field(256, ge=1)
    """width of a token's vector"""
    width: int = Field(512, ge=1)
    """width of a layer's output, both directions together"""
    layers: int = Field(1, ge=1)
    """number of layers"""
    bidirectional: bool = True
    """read from both ends; each direction has half the width"""
    reverse: bool = False
    """read from the end to the beginning (for an encoder that is not bidirectional)"""
    residual: bool = False
    """add to each layer but the first what it reads"""
    normalised: bool = False
    """normalise within the layers (slower: no fused layer does it)"""
    variational: bool = False
    """one dropout mask for all positions, on the recurrence too (slower in training)"""
    truncate: int | None = Field(None, ge=1)
    """let no gradient cross every so many steps; none is cut if left out"""
    dropout: float = Field(0.2, ge=0, lt=1)
    """share of values dropped between layers while training"""

    def build(self, vocabulary: int) -> RecurrentEncoder:
        """Make the encoder.

        Raises:
            Problem: a two-way encoder of odd width, or one that is to read in reverse.
        """
        if self.bidirectional and self.reverse:
            raise Problem(
                "a bidirectional encoder reads from the end already; leave this out or set "
                "bidirectional: false",
                "model.encoder.reverse",
            )
        if self.bidirectional and self.width % 2:
            raise Problem(
                f"a bidirectional encoder halves its width, and {self.width} is odd; make it even",
                "model.encoder.width",
            )
        return RecurrentEncoder(self, vocabulary)


class RecurrentEncoder(Encoder):
    """Embeds and reads; its summary is the state after the last token (of each direction).

    In reverse (Sutskever 2014) the last token read is the first; states stay with their tokens.
    """

    def __init__(self, blueprint: RecurrentEncoderBlueprint, vocabulary: int) -> None:
        super().__init__()
        self.width, self.bidirectional = blueprint.width, blueprint.bidirectional
        self.reverse = blueprint.reverse
        style = Style(
            blueprint.residual, blueprint.normalised, blueprint.variational, blueprint.truncate
        )
        self.embedding = TokenTable(vocabulary, blueprint.embedding)
        self.dropout = style.dropout(blueprint.dropout)
        reader = Bidirectional if blueprint.bidirectional else Stack
        self.reader = reader(
            blueprint.cell,
            blueprint.embedding,
            blueprint.width,
            blueprint.layers,
            blueprint.dropout,
            style,
        )

    def forward(self, source: Sequences) -> Bank:
        """Read the sources."""
        embedded = self.dropout(self.embedding(source.data))
        if self.bidirectional:
            states = self.reader(embedded, source.lengths)
        elif self.reverse:
            states = reverse(self.reader(reverse(embedded, source.lengths))[0], source.lengths)
        else:
            states = self.reader(embedded)[0]
        return Bank(self.dropout(states), source.mask(), self._summary(states, source.lengths))

    def _summary(self, states: Tensor, lengths: Tensor) -> Tensor:
        if self.reverse:
            return states[:, 0].clone()
        last = states[torch.arange(len(states), device=states.device), lengths - 1]
        if not self.bidirectional:
            return last
        half = self.width // 2
        return torch.cat([last[:, :half], states[:, 0, half:]], -1)
