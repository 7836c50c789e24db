"""Mixtures that follow what is measured on dev: whose turn it is more often as training goes on."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from transduce.blueprint import Part

LEAST: Final = 1e-6  # nats; a loss below it is as good as none


class Measured(NamedTuple):
    """What a validation found."""

    epoch: int  # the first that begins after it
    losses: tuple[float, ...]  # of each corpus on its own dev set, nats a target symbol


class FollowBlueprint(Part):
    """Slot for how the shares of the corpora follow from their losses on dev."""

    @abstractmethod
    def factors(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by what the plain share of each corpus is multiplied; the ratios count alone.

        ``losses`` has a row for each validation so far, of which there is one at least, and a
        column for each corpus.
        """

    def require(self, corpora: int) -> None:
        """Refuse to follow another number of corpora than this was made for.

        Raises:
            ValueError: that.
        """


class BehindBlueprint(FollowBlueprint):
    """More of a corpus that is behind: max(1, loss / goal) ^ power, by the last validation.

    Jean (2019) do so with scores, and baselines for goals.
    """

    kind: Literal["behind"] = "behind"
    goals: tuple[PositiveFloat, ...] | None = None
    """a loss of each corpus that is good enough, such as that of a model of this corpus alone, in
    nats a symbol; null: for all of them the lowest loss of any"""
    power: PositiveFloat = 2.0
    """how strongly"""

    def factors(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        last = losses[-1].clip(min=LEAST)
        goals = np.array(self.goals or last.min())
        found: NDArray[np.float64] = (last / goals).clip(min=1.0) ** self.power
        return found

    def require(self, corpora: int) -> None:
        if self.goals is not None and len(self.goals) != corpora:
            raise ValueError(
                f"follow.goals: {len(self.goals)} for {corpora} corpora; give one for each"
            )


class ProgressBlueprint(FollowBlueprint):
    """More of a corpus whose loss changes fast, be it that it gets better or that it is forgotten.

    The change from one validation to the next is remembered as a moving average, and its size over
    the mean size of all corpora multiplies the share (Matiisen 2017, the online algorithm).
    """

    kind: Literal["progress"] = "progress"
    memory: float = Field(0.5, ge=0, lt=1)
    """what the changes before the last one count in the average"""
    floor: float = Field(0.2, ge=0, le=1)
    """the factor of a corpus that stands still; it is 1 on average"""

    def factors(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        changes = np.diff(losses, axis=0)
        ages = np.arange(len(changes))[::-1]
        sizes: NDArray[np.float64] = np.abs(self.memory**ages @ changes)
        if sizes.sum() == 0:
            return np.ones(losses.shape[1])
        found: NDArray[np.float64] = self.floor + (1 - self.floor) * sizes / sizes.mean()
        return found
