"""Which checkpoints of a run are its best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Best:
    """All validations, and which of their checkpoints are kept."""

    keep: int
    found: list[tuple[float, int]] = field(default_factory=list)

    @property
    def kept(self) -> list[tuple[float, int]]:
        """The checkpoints that are kept, best first."""
        return self.until(math.inf)

    def until(self, step: float) -> list[tuple[float, int]]:
        """Return those that were kept after an update, best first."""
        earlier = (pair for pair in self.found if pair[1] <= step)
        return sorted(earlier, key=lambda pair: (-pair[0], pair[1]))[: self.keep]

    def enter(self, quality: float, step: int) -> bool:
        """Enter a checkpoint; return whether it is the best so far."""
        best = not self.found or quality > self.kept[0][0]
        self.found.append((quality, step))
        return best
