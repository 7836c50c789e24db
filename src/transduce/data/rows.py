"""What the order of training is an order of: rows of symbols, whatever they are made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from transduce.data.batch import Batch, Example
from transduce.data.follow import Measured
from transduce.data.lines import Fault, Skipped

NOISE: Final = "noise"  # the pick that is no variant of a side, but the key of a row's noise

# For each side with several variants the one of each row; for noise what it is drawn from.
Picks = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Counts:
    """How much there is on one side; symbols without BOS and EOS."""

    texts: int
    symbols: int
    unknown: int
    longest: int


class Rows(ABC):
    """Encoded examples; a row is a source with one of its references.

    An epoch is made of turns, which are numbered from 0; each brings up a row.
    """

    noised: bool = False  # rows differ from epoch to epoch by more than their variants
    fingerprint: str  # of all that the content follows from

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """The number of examples."""

    @property
    @abstractmethod
    def variants(self) -> dict[str, int]:
        """The number of encodings of each text on each side."""

    @property
    @abstractmethod
    def counts(self) -> dict[str, Counts]:
        """How much there is on each side."""

    @property
    @abstractmethod
    def skipped(self) -> Skipped:
        """What was left out."""

    @abstractmethod
    def starts(self) -> NDArray[np.int64]:
        """Return the first row of each example."""

    def ease(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how easy rows are, as their corpus says.

        Raises:
            ValueError: it does not say.
        """
        raise ValueError("nobody has said how easy the examples are")

    def turns(self, epoch: int) -> int:
        """Return how many turns an epoch has; by itself as many as there are rows."""
        return len(self)

    def drawn(self, turns: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the rows that have these turns, a pure function of all that is given."""
        return turns

    def following(self, course: Sequence[Measured]) -> Rows:
        """Return the rows with turns that follow what is measured, if they follow anything.

        ``course`` may grow behind what has been asked about: by what is measured in an epoch the
        next one goes.
        """
        return self

    @abstractmethod
    def lengths(self, rows: NDArray[np.int64], picks: Picks | None = None) -> NDArray[np.int64]:
        """Return an array (sides, rows), the target last: the most positions that a model sees.

        EOS counts; BOS does not, because a target is read without its last symbol.
        """

    @abstractmethod
    def batch(self, rows: NDArray[np.int64], picks: Picks | None = None) -> Batch:
        """Return rows side by side; they are the ``index`` of the batch."""

    @abstractmethod
    def beyond(self, side: str, most: int) -> Fault | None:
        """Return the first text of a side that takes a model more than so many positions."""

    @abstractmethod
    def largest(self, side: str) -> int:
        """Return the largest number of a symbol on a side."""

    @abstractmethod
    def example(self, index: int) -> Example:
        """Return an example as text."""

    def index(self, row: int) -> int:
        """Return the example that a row belongs to."""
        return int(np.searchsorted(self.starts(), row, side="right")) - 1

    def place(self, row: int) -> str:
        """Return where the example of a row was read, as file:line."""
        return self.example(self.index(row)).place
