"""Beginning from a trained model instead of from nothing: all of it, or a part."""

from __future__ import annotations

from transduce.adapt.start import Side, StartBlueprint

__all__ = ["Side", "StartBlueprint"]
