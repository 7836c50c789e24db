"""The convolutional encoder (Gehring 2017)."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from transduce.models.interface import Bank, Encoder, EncoderBlueprint
from transduce.nn.convolution import GatedConvolution, add
from transduce.nn.dropout import Dropout
from transduce.nn.layers import TokenTable, projection
from transduce.nn.positions import Sinusoid
from transduce.nn.recompute import recomputable
from transduce.problem import Problem
from transduce.sequences import Sequences, positions


class ConvolutionalEncoderBlueprint(EncoderBlueprint):
    """Gated convolutions over the source."""

    kind: Literal["convolutional"] = "convolutional"
    width: int = Field(256, ge=2, multiple_of=2)
    """width of every position"""
    layers: int = Field(4, ge=1)
    """number of layers; the last sees layers * (kernel - 1) + 1 positions"""
    kernel: int = Field(3, ge=3)
    """positions that a convolution sees; an odd number"""
    dropout: float = Field(0.2, ge=0, lt=1)
    """share of values dropped while training"""

    def build(self, vocabulary: int) -> ConvolutionalEncoder:
        """Make the encoder.

        Raises:
            Problem: an even kernel.
        """
        if self.kernel % 2 == 0:
            raise Problem(
                f"a kernel of {self.kernel} has no middle, where the position that it reads for "
                f"should stand; take {self.kernel - 1} or {self.kernel + 1}",
                "model.encoder.kernel",
            )
        return ConvolutionalEncoder(self, vocabulary)


class ConvolutionalEncoder(Encoder):
    """Each position sees its neighbours, and with every layer further; its summary is the mean."""

    def __init__(self, blueprint: ConvolutionalEncoderBlueprint, vocabulary: int) -> None:
        super().__init__()
        self.width, self.reach = blueprint.width, blueprint.kernel // 2
        self.embedding = TokenTable(vocabulary, blueprint.width)
        self.place = Sinusoid(blueprint.width)
        self.dropout = Dropout(blueprint.dropout)
        self.layers = nn.ModuleList(
            GatedConvolution(blueprint.width, blueprint.kernel, blueprint.dropout)
            for _ in range(blueprint.layers)
        )
        self.out = projection(blueprint.width, blueprint.width)

    def forward(self, source: Sequences) -> Bank:
        """Read the sources."""
        mask = source.mask()
        place = positions(source.size, source.data.device)
        embedded = self.dropout(self.place(self.embedding(source.data), place))
        x, real = embedded, mask[..., None]
        for layer in self.layers:
            # What a kernel sees beyond the end of a row is zero, padding or not.
            x = add(x, recomputable(layer)(F.pad(x * real, (0, 0, self.reach, self.reach))))
        x = self.out(x)
        summary = (x * real).sum(1) / source.lengths[:, None]
        return Bank(x, mask, summary, embedded)
