"""Narrow layers between the layers of a trained model (Houlsby 2019)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from transduce.adapt.interface import AdaptBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.addition import Bottleneck, Outlet


class BottleneckBlueprint(AdaptBlueprint):
    """A narrow layer behind every layer, as Houlsby's adapters; always a part of its own."""

    kind: Literal["bottleneck"] = "bottleneck"
    width: int = Field(16, ge=1)
    """units of each"""
    parts: tuple[Literal["encoder", "decoder"], ...] = Field(("encoder", "decoder"), min_length=1)
    """where to add it"""

    def insert(self, model: Seq2Seq) -> int:
        """Put one at the outlet of each layer."""
        outlets = [part for part in self.modules(model) if isinstance(part, Outlet)]
        device = next(model.parameters()).device
        for outlet in outlets:
            outlet.adapter = Bottleneck(outlet.width, self.width).to(device)
        return len(outlets)
