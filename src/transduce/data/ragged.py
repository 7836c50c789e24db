"""Rows of unequal length on disk: one flat file of values, one of the places where rows end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.problem import Problem
from transduce.sequences import Sequences

LARGE: Final = 2**26  # bytes of a file whose pages are given back
PLACES: Final = 2**11  # that are read before; each can bring 16 pages of 4 KB


class RaggedWriter:
    """Appends rows to the files ``name.values`` and ``name.ends``; memory stays small."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self._dtype, self._end = dtype, 0
        with ExitStack() as files:
            self._values = files.enter_context((folder / f"{name}.values").open("wb"))
            self._ends = files.enter_context((folder / f"{name}.ends").open("wb"))
            self._ends.write(bytes(8))
            self._files = files.pop_all()

    def extend(self, rows: bytes, lengths: Sequence[int]) -> None:
        """Append rows whose values stand one after the other."""
        self._values.write(rows)
        ends = self._end + np.cumsum(lengths, dtype="<i8")
        self._ends.write(ends.tobytes())
        self._end = int(ends[-1]) if len(ends) else self._end

    def __enter__(self) -> RaggedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()


class Mapped:
    """A file of numbers, of which only what was read of late is resident.

    Pages of a mapped file stay with the process that has touched them, and chance touches all in
    the end; so those of a large file are given back now and then. They come again when they are
    read, mostly from the memory of the system.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self._pages: mmap | None = None
        self._touched = 0
        if size := path.stat().st_size:  # what is empty cannot be mapped
            with path.open("rb") as file:
                pages = mmap(file.fileno(), 0, access=ACCESS_READ)
            self.array: NDArray[Any] = np.frombuffer(pages, dtype)
            self._pages = pages if size >= LARGE else None
        else:
            self.array = np.empty(0, dtype)

    def touch(self, places: int) -> None:
        """Note that so many places were read; give pages back if it was many."""
        self._touched += places
        if self._pages is not None and self._touched > PLACES:
            self._pages.madvise(MADV_DONTNEED)
            self._touched = 0


@dataclass(frozen=True)
class Ragged:
    """Rows as a ``RaggedWriter`` left them, mapped into memory and read where they are needed."""

    values: NDArray[Any] = field(repr=False)
    ends: NDArray[np.int64] = field(repr=False)  # row i goes from ends[i] to ends[i + 1]
    files: tuple[Mapped, ...] = field(default=(), repr=False)  # that hold these

    @classmethod
    def open(cls, folder: Path, name: str, dtype: str, rows: int) -> Ragged:
        """Map the files that hold so many rows.

        Raises:
            Problem: they are missing or hold something else.
        """
        try:
            values, ends = (
                Mapped(folder / f"{name}.values", dtype),
                Mapped(folder / f"{name}.ends", "<i8"),
            )
            if len(ends.array) != rows + 1 or ends.array[-1] != len(values.array):
                raise ValueError("lengths differ")
        except (OSError, ValueError):
            what = f"the files {name}.values and {name}.ends are damaged; delete this folder"
            raise Problem(what, str(folder)) from None
        return cls(values.array, ends.array, (values, ends))

    def row(self, index: int) -> NDArray[Any]:
        """Return one row."""
        return self.values[self.ends[index] : self.ends[index + 1]]

    def text(self, index: int) -> str:
        """Return one row of bytes as text."""
        return self.row(index).tobytes().decode()

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of some rows."""
        lengths = self.ends[rows + 1] - self.ends[rows]
        self._touch(len(rows))
        return lengths

    def gather(self, rows: NDArray[np.int64]) -> Sequences:
        """Return rows side by side, with zeros as padding."""
        starts, lengths = self.ends[rows], self.lengths(rows)
        places = np.arange(lengths.max())
        padded = self.values.take(starts[:, None] + places, mode="clip")
        if padded.dtype.kind != "f":
            padded = padded.astype(np.int64)
        padded[places >= lengths[:, None]] = 0
        return Sequences(torch.from_numpy(padded), torch.from_numpy(lengths))

    def _touch(self, places: int) -> None:
        for file in self.files:
            file.touch(places)
