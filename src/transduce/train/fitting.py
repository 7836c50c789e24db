"""Batches that do not fit into the memory: computed in halves, so that nothing is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from transduce.data.batch import Batch

R = TypeVar("R")

TELLING = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class TooLarge(Exception):
    """A single row does not fit into the memory; ``row`` is its number in the corpus."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} does not fit into the memory")
        self.row = row


class Fitting:
    """Computes batches, in parts where they would not fit, and remembers how large is too large."""

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit  # positions for which memory has run out, padding included

    def parts(self, batch: Batch) -> list[Batch]:
        """Return the batch, or its rows in halves of halves that are below the limit."""
        if len(batch) == 1 or positions(batch) < self.limit:
            return [batch]
        halves = torch.arange(len(batch)).chunk(2)
        return [part for half in halves for part in self.parts(batch.take(half))]

    def compute(
        self,
        batches: Sequence[Batch],
        work: Callable[[Batch], R],
        begin: Callable[[], object] = lambda: None,
    ) -> list[R]:
        """Return what ``work`` makes of the parts of each batch.

        Where memory runs out, everything begins anew with smaller parts; ``begin`` is called first
        each time and takes back what was done.

        Raises:
            TooLarge: a single row does not fit.
        """
        while True:
            begin()
            found: list[R] = []
            failed: Batch | None = None
            for part in (part for batch in batches for part in self.parts(batch)):
                try:
                    found.append(work(part))
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    failed = part
                    break
            if failed is None:
                return found
            # only here, behind the handler, has the error let go of the tensors of its frames
            del found
            torch.cuda.empty_cache()
            if len(failed) == 1:
                raise TooLarge(int(failed.index[0]))
            self.limit = positions(failed)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a GPU or for the processor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in TELLING)


def positions(batch: Batch) -> int:
    """Return the positions of a batch on all sides, padding included."""
    sides = [*batch.sources.values(), *([batch.target] if batch.target else [])]
    return len(batch) * sum(side.size for side in sides)
