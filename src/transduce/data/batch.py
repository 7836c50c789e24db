"""What flows from a corpus to a model: examples of text, then batches of symbols."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.sequences import Sequences


@dataclass(frozen=True)
class Example:
    """One thing to transduce, with every right answer that is known."""

    sources: dict[str, str]
    references: tuple[str, ...]
    place: str  # where it was read, as file:line
    weight: float = 1.0  # what its loss counts in training
    word_weights: tuple[float, ...] = ()  # of each word of its only reference, and maybe its end
    ease: float = 0.0  # the higher the easier, for a curriculum
    alignment: tuple[tuple[int, int], ...] = ()  # places of words, source before target


@dataclass(frozen=True)
class Batch:
    """Examples side by side; the rows of all its sequences belong together.

    Sources end with the symbol EOS; a target goes from BOS to EOS, and a model that has read
    ``inputs`` up to some position is to predict ``labels`` at that position.
    """

    sources: dict[str, Sequences]
    target: Sequences | None  # None where only the sources are known
    index: Int[Tensor, "B"]  # the position of each row in its corpus
    weights: Float[Tensor, "B #T"] | None = None  # what the loss of labels counts; None: 1
    # of each row the pairs (place of a label, place of a source symbol) that belong together
    alignment: Sequences | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def inputs(self) -> Sequences:
        """The targets without the last symbol of each row: BOS and all that is read."""
        target = self._known()
        return Sequences(target.data[:, :-1], target.lengths - 1)

    @property
    def labels(self) -> Sequences:
        """The targets without their first symbol: all that is predicted, and EOS."""
        target = self._known()
        return Sequences(target.data[:, 1:], target.lengths - 1)

    @property
    def tokens(self) -> int:
        """The number of labels; ask before the batch moves to a device, or wait for the device."""
        return int(self.labels.lengths.sum())

    @property
    def label_weights(self) -> Float[Tensor, "B T"] | None:
        """What the loss of every label counts; None: 1."""
        return None if self.weights is None else self.weights.expand_as(self.labels.data)

    def take(self, rows: Int[Tensor, "M"]) -> Batch:
        """Return some of the rows, no longer than they have to be."""
        target = self.target.take(rows) if self.target else None
        labels = target.size - 1 if target else 0
        return replace(
            self,
            sources={name: source.take(rows) for name, source in self.sources.items()},
            target=target,
            index=self.index[rows],
            weights=None if self.weights is None else self.weights[rows, :labels],
            alignment=self.alignment.take(rows) if self.alignment else None,
        )

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on ``device``."""
        return replace(
            self,
            sources={name: source.to(device) for name, source in self.sources.items()},
            target=self.target.to(device) if self.target else None,
            index=self.index.to(device, non_blocking=True),
            weights=None if self.weights is None else self.weights.to(device, non_blocking=True),
            alignment=self.alignment.to(device) if self.alignment else None,
        )

    def _known(self) -> Sequences:
        if self.target is None:
            raise ValueError("this batch has no target")
        return self.target
