"""The hybrid encoder (Chen 2018): self-attention over what a two-way recurrence has read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from transduce.models.encoders.transformer import TransformerEncoder
from transduce.models.interface import EncoderBlueprint
from transduce.models.layers import LayersBlueprint
from transduce.nn.positions import NoPositionsBlueprint, PositionsBlueprint
from transduce.nn.recurrent import Bidirectional
from transduce.nn.span import FullSpan
from transduce.nn.steps import Cell


class HybridEncoderBlueprint(EncoderBlueprint, LayersBlueprint):
    """Self-attention layers over LSTM or GRU layers that read both ways."""

    kind: Literal["hybrid"] = "hybrid"
    cell: Cell = "lstm"
    """kind of recurrent unit"""
    recurrent_layers: int = Field(1, ge=1)
    """number of recurrent layers; each direction has half the width"""
    layers: int = Field(1, ge=1)
    """number of self-attention layers"""
    positions: PositionsBlueprint = NoPositionsBlueprint()
    """how self-attention knows where a symbol stands; the recurrence tells it already"""

    def build(self, vocabulary: int) -> TransformerEncoder:
        """Make the encoder."""
        reader = Bidirectional(
            self.cell, self.width, self.width, self.recurrent_layers, self.dropout
        )
        return TransformerEncoder(self, vocabulary, FullSpan(), reader)
