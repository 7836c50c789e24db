"""No encoder: a decoder that reads nothing is a language model."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from transduce.models.interface import Bank, Encoder, EncoderBlueprint
from transduce.sequences import Sequences


class NoEncoderBlueprint(EncoderBlueprint):
    """No source at all: the decoder is a language model."""

    reads: ClassVar[bool] = False

    kind: Literal["none"] = "none"

    def build(self, vocabulary: int) -> NoEncoder:
        """Make it, for a source of any symbols."""
        return NoEncoder()


class NoEncoder(Encoder):
    """Leaves a bank without positions and of width 0, so that a decoder has nothing to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 0
        self.register_buffer("nothing", torch.zeros(0), persistent=False)  # says type and device

    def forward(self, source: Sequences) -> Bank:
        """Count the sources."""
        nothing, rows = self.get_buffer("nothing"), len(source)
        mask = torch.zeros(rows, 0, dtype=torch.bool, device=nothing.device)
        return Bank(nothing.new_zeros(rows, 0, 0), mask, nothing.new_zeros(rows, 0))
