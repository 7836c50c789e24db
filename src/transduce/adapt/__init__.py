"""Going on from a trained model: beginning with all or part of it, or adding little to it."""

from __future__ import annotations

from transduce.adapt.bottleneck import BottleneckBlueprint
from transduce.adapt.interface import AdaptBlueprint
from transduce.adapt.lora import LoraBlueprint
from transduce.adapt.start import StartBlueprint

__all__ = ["AdaptBlueprint", "BottleneckBlueprint", "LoraBlueprint", "StartBlueprint"]
