"""Corpora on disk: tables, read one example at a time."""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from transduce.data.lines import ENDLESS, Fault, Line, read_lines
from transduce.data.read import FilesBlueprint, Row
from transduce.problem import Problem, nearest

Column = Annotated[int, Field(ge=1)] | str
Columns = Column | Annotated[tuple[Column, ...], Field(min_length=1)]


class Cells(NamedTuple):
    """A row of a table."""

    place: str
    texts: list[str]


class TableBlueprint(FilesBlueprint):
    """A table: an example a row."""

    source: Column = 1
    """the column of sources, by number from 1 or by its name in the first row"""
    target: Columns = 2
    """the column of targets, or several columns: as many references of each source"""
    header: bool = False
    """the first row of each file holds names; that is so, too, if a column is given by name"""
    weight: Column | None = None
    """the column of weights: what the loss counts of each example, or of each word of its target"""
    ease: Column | None = None
    """the column of how easy each example is, a number, for a curriculum of what is given"""
    alignment: Column | None = None
    """the column of alignments, such as 0-0 2-1: places of words, source before target"""

    @abstractmethod
    def cells(self, path: Path) -> Iterator[Cells | Fault]:
        """Yield the rows of one file."""

    def rows(self, base: Path) -> Iterator[Row | Fault]:
        for name in self.files:
            yield from self._rows(self.cells(base / name))

    def _rows(self, table: Iterator[Cells | Fault]) -> Iterator[Row | Fault]:
        targets = self.target if isinstance(self.target, tuple) else (self.target,)
        more = (self.weight, self.ease, self.alignment)
        columns = (self.source, *targets, *(column for column in more if column is not None))
        named = self.header or any(isinstance(column, str) for column in columns)
        first: Cells | None = None
        for row in table:
            if isinstance(row, Fault):
                if named and first is None:
                    raise row.problem()
                yield row
                continue
            if first is None:
                first, places = row, [_find(column, row) for column in columns]
                if named:
                    continue
            if len(row.texts) != len(first.texts):
                yield _wrong_width(row, first)
                continue
            source, *others = (Line(row.place, row.texts[place]) for place in places)
            yield self._row(source, others)


def _find(column: int | str, first: Cells) -> int:
    """Return the index of a column in a table that starts with this row."""
    if isinstance(column, int):
        if column > len(first.texts):
            what = f"there is no column {column}; the row has {len(first.texts)}"
            raise Problem(what, first.place)
        return column - 1
    if column not in first.texts:
        meant = nearest(column, first.texts)
        hint = f"did you mean {meant!r}?" if meant else f"choose from ({', '.join(first.texts)})"
        raise Problem(f"there is no column {column!r}; {hint}", first.place)
    if first.texts.count(column) > 1:
        raise Problem(f"several columns are called {column!r}; rename all but one", first.place)
    return first.texts.index(column)


def _wrong_width(row: Cells, first: Cells) -> Fault:
    what = (
        f"{len(row.texts)} columns, but {first.place} has {len(first.texts)}; give all rows the "
        "same columns"
    )
    return Fault(row.place, "wrong number of columns", what)


class TsvBlueprint(TableBlueprint):
    """A table whose columns are separated by tabs; there is no quoting."""

    kind: Literal["tsv"] = "tsv"

    def cells(self, path: Path) -> Iterator[Cells | Fault]:
        for line in read_lines(path):
            yield line.fault or Cells(line.place, line.text.split("\t"))


class CsvBlueprint(TableBlueprint):
    """A table with quoting (RFC 4180); wrong quoting is always an error, as nothing after it is
    sure."""

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(",", min_length=1, max_length=1)
    """the character between columns"""

    def cells(self, path: Path) -> Iterator[Cells | Fault]:
        lines: list[Line] = []  # of the row that is being read
        table = csv.reader(
            _remember(read_lines(path), lines), delimiter=self.delimiter, strict=True
        )
        while True:
            lines.clear()
            try:
                row = next(table)
            except StopIteration:
                return
            except csv.Error as error:
                what = f"no CSV ({error}); check the quotes from here on"
                raise Problem(what, lines[0].place if lines else str(path)) from None
            fault = next((line.fault for line in lines if line.fault), None)
            yield fault or Cells(lines[0].place, row)


def _remember(lines: Iterable[Line], seen: list[Line]) -> Iterator[str]:
    for line in lines:
        if line.fault and line.fault.reason == ENDLESS:
            raise line.fault.problem()
        seen.append(line)
        yield line.text + "\n"
