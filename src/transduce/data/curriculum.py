"""Curricula: what is easy comes first."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from transduce.blueprint import Part
from transduce.data.rows import Rows
from transduce.sequences import Sequences

BLOCK: Final = 4096  # rows that are looked at together


class Turns(Protocol):
    """Whose turn it is in each epoch."""

    def turns(self, epoch: int) -> int:
        """Return how many turns an epoch has."""

    def drawn(self, turns: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the rows that have these turns, a pure function of all that is given."""


class CurriculumBlueprint(Part):
    """Slot for what makes an example difficult.

    Competence (Platanios 2019) is the share of the examples, the easiest first, that an epoch
    takes: in epoch t, from 0, it is the root of start² + (1 - start²) t / epochs.
    """

    epochs: int = Field(10, ge=1)
    """epochs until there is nothing left out"""
    start: float = Field(0.1, gt=0, le=1)
    """the share of the examples that the first epoch takes"""

    @abstractmethod
    def difficulty(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        """Yield how difficult the rows are, block by block, in order."""

    def over(self, rows: Rows) -> Turns:
        """Put the rows in order."""
        found = np.empty(len(rows), np.float32)
        start = 0
        for block in self.difficulty(rows):
            found[start : start + len(block)] = block
            start += len(block)
        easiest = found.argsort(kind="stable")
        return Curriculum(easiest.astype(np.uint32), self.epochs, self.start)


class Curriculum:
    """Epochs of the easiest rows, more of them in each, until it is all."""

    def __init__(self, easiest: NDArray[np.uint32], epochs: int, start: float) -> None:
        self.easiest, self.epochs, self.start = easiest, epochs, start

    def turns(self, epoch: int) -> int:
        """Return how many rows are easy enough."""
        if epoch >= self.epochs:
            return len(self.easiest)
        least = self.start**2
        competence = math.sqrt(least + (1 - least) * epoch / self.epochs)
        return math.ceil(competence * len(self.easiest))

    def drawn(self, turns: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the rows in their order; what has a turn is no matter of chance."""
        return self.easiest[turns].astype(np.int64)


class LengthBlueprint(CurriculumBlueprint):
    """A long source is difficult."""

    kind: Literal["length"] = "length"

    def difficulty(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        for block in _blocks(rows):
            yield rows.lengths(block)[0].astype(np.float32)


class RarityBlueprint(CurriculumBlueprint):
    """A source of rare symbols is difficult: the sum of -log p of all, by how often each is."""

    kind: Literal["rarity"] = "rarity"

    def difficulty(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        counts = np.zeros(0, np.int64)
        for source in _sources(rows):
            found = np.bincount(source.data[source.mask()].numpy(), minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        # What does not occur is never looked up.
        rarity = torch.from_numpy(-np.log(np.maximum(counts, 1) / counts.sum())).float()
        for source in _sources(rows):
            yield (rarity[source.data] * source.mask()).sum(1).numpy()


class GivenBlueprint(CurriculumBlueprint):
    """What the data calls easy comes first: ``ease``, such as how likely a model finds a target."""

    kind: Literal["given"] = "given"

    def difficulty(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        for block in _blocks(rows):
            yield -rows.ease(block).astype(np.float32)


def _blocks(rows: Rows) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), BLOCK):
        yield np.arange(start, min(start + BLOCK, len(rows)))


def _sources(rows: Rows) -> Iterator[Sequences]:
    return (rows.batch(block).sources["source"] for block in _blocks(rows))
