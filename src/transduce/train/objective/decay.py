"""How a probability falls with the updates: pure functions, so that there is nothing to save."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

from pydantic import Field

from transduce.blueprint import Part


class DecayBlueprint(Part):
    """Slot for a decay."""

    @abstractmethod
    def at(self, step: int) -> float:
        """Return the probability after ``step`` updates, from 1 at most to 0 at least."""


class LinearDecay(DecayBlueprint):
    """Falls in a straight line from 1 to a floor."""

    kind: Literal["linear"] = "linear"
    updates: int = Field(5000, ge=1)
    """updates until it has reached the floor"""
    floor: float = Field(0.0, ge=0, le=1)
    """what is left of it"""

    def at(self, step: int) -> float:
        """Return max(floor, 1 - (1 - floor) step / updates)."""
        return max(self.floor, 1 - (1 - self.floor) * step / self.updates)


class ExponentialDecay(DecayBlueprint):
    """Falls by the same factor at every update."""

    kind: Literal["exponential"] = "exponential"
    base: float = Field(0.9997, gt=0, lt=1)
    """the factor"""

    def at(self, step: int) -> float:
        """Return base ** step."""
        return float(self.base**step)


class InverseSigmoidDecay(DecayBlueprint):
    """Stays near 1, falls, and stays near 0."""

    kind: Literal["inverse_sigmoid"] = "inverse_sigmoid"
    scale: float = Field(600.0, ge=1)
    """k in k / (k + exp(step / k)); it is a half after k ln k updates"""

    def at(self, step: int) -> float:
        """Return k / (k + exp(step / k))."""
        return self.scale / (self.scale + math.exp(min(step / self.scale, 700.0)))
