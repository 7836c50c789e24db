"""Rows of unequal length on disk: one flat file of values, one of the places where rows end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.problem import Problem
from transduce.sequences import Sequences


class RaggedWriter:
    """Appends rows to the files ``name.values`` and ``name.ends``; memory stays small."""

    def __init__(self, folder: Path, name: str, dtype: str) -> None:
        self._dtype, self._end = dtype, 0
        with ExitStack() as files:
            self._values = files.enter_context((folder / f"{name}.values").open("wb"))
            self._ends = files.enter_context((folder / f"{name}.ends").open("wb"))
            self._ends.write(bytes(8))
            self._files = files.pop_all()

    def add(self, row: Sequence[int] | bytes) -> None:
        """Append one row."""
        self._values.write(row if isinstance(row, bytes) else np.array(row, self._dtype).tobytes())
        self._end += len(row)
        self._ends.write(self._end.to_bytes(8, "little"))

    def __enter__(self) -> RaggedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()


@dataclass(frozen=True)
class Ragged:
    """Rows as a ``RaggedWriter`` left them, mapped into memory and read where they are needed."""

    values: NDArray[Any] = field(repr=False)
    ends: NDArray[np.int64] = field(repr=False)  # row i goes from ends[i] to ends[i + 1]

    @classmethod
    def open(cls, folder: Path, name: str, dtype: str, rows: int) -> Ragged:
        """Map the files that hold so many rows.

        Raises:
            Problem: they are missing or hold something else.
        """
        try:
            # As plain arrays, because indexing a memmap makes a memmap, which takes time.
            path = folder / f"{name}.values"
            # An empty file cannot be mapped, and a side that a corpus does not have holds no text.
            mapped = np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)
            values = np.asarray(mapped)
            ends = np.asarray(np.memmap(folder / f"{name}.ends", "<i8", "r"))
            if len(ends) != rows + 1 or ends[-1] != len(values):
                raise ValueError("lengths differ")
        except (OSError, ValueError):
            what = f"the files {name}.values and {name}.ends are damaged; delete this folder"
            raise Problem(what, str(folder)) from None
        return cls(values, ends)

    def row(self, index: int) -> NDArray[Any]:
        """Return one row."""
        return self.values[self.ends[index] : self.ends[index + 1]]

    def text(self, index: int) -> str:
        """Return one row of bytes as text."""
        return self.row(index).tobytes().decode()

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lengths of some rows."""
        return self.ends[rows + 1] - self.ends[rows]

    def gather(self, rows: NDArray[np.int64]) -> Sequences:
        """Return rows side by side, with zeros as padding."""
        starts, lengths = self.ends[rows], self.lengths(rows)
        places = np.arange(lengths.max())
        padded = self.values.take(starts[:, None] + places, mode="clip").astype(np.int64)
        padded[places >= lengths[:, None]] = 0
        return Sequences(torch.from_numpy(padded), torch.from_numpy(lengths))
