"""How much a training example counts, by how two models differ about it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from transduce.blueprint import Part


class WeightingBlueprint(Part):
    """Slot for what makes weights of differences."""

    @abstractmethod
    def weights(self, differences: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a weight from 0 to 1 for each example of a corpus.

        A difference is the mean over the target's symbols, its end included, of log p by the model
        that knows what is good minus log p by the general one, in nats.
        """


class RatioBlueprint(WeightingBlueprint):
    """min(1, (p_trusted / p_general) ^ sharpness), each p a geometric mean over symbols.

    Where ``sharpness`` is 1, it is the domain score of Junczys-Dowmunt (2018).
    """

    kind: Literal["ratio"] = "ratio"
    sharpness: PositiveFloat = 1.0
    """how fast weights fall where the general model likes an example better; as differences are
    means over symbols, short ones such as characters ask for more"""

    def weights(self, differences: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.exp(np.minimum(0.0, self.sharpness * differences))
        return found


class BestBlueprint(WeightingBlueprint):
    """1 for the examples with the largest differences, 0 for the others (Moore & Lewis 2010)."""

    kind: Literal["best"] = "best"
    share: float = Field(0.5, gt=0, le=1)
    """of all examples"""

    def weights(self, differences: NDArray[np.float64]) -> NDArray[np.float64]:
        best = np.argsort(-differences, kind="stable")[: round(self.share * len(differences))]
        found = np.zeros(len(differences))
        found[best] = 1.0
        return found
