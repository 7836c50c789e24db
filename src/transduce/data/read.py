"""Corpora on disk, read one example at a time; parallel files among them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from transduce.blueprint import Part
from transduce.data.alignment import alignment_fault, parse
from transduce.data.batch import Example
from transduce.data.lines import Fault, Line, Skipped, read_lines
from transduce.data.weights import parse as parse_weights
from transduce.data.weights import weight_fault
from transduce.problem import Problem
from transduce.text.codec import Reserved

Names = str | Annotated[tuple[str, ...], Field(min_length=1)]


class Row(NamedTuple):
    """One example, each text with its place."""

    source: Line
    references: tuple[Line, ...]
    weight: Line | None = None
    ease: Line | None = None
    alignment: Line | None = None


class CorpusBlueprint(Part):
    """Slot for a corpus: where it is, and what to do where it is faulty."""

    paired: ClassVar[bool] = True  # every text has a source

    group: bool = False
    """make one example, with several references, of all rows with the same source; for dev and
    test sets, because it holds them in memory"""
    max_characters: int = Field(10_000, ge=1)
    """a longer text is a fault"""
    on_bad_line: Literal["error", "skip"] = "error"
    """stop at the first fault, or leave faulty examples out, counted and listed"""
    tag: Reserved | None = None
    """a symbol to put before every source, such as <2de> (into German) or <BT> (translated back)"""

    @property
    def denoises(self) -> bool:
        """Whether the source of an example is drawn from its target."""
        return False

    @property
    def divides(self) -> bool:
        """Whether chance divides a text anew in every epoch, so that targets do not stay."""
        return False

    @property
    def weighted(self) -> bool:
        """Whether examples have weights."""
        return self._says("weight")

    @property
    def graded(self) -> bool:
        """Whether it is known how easy examples are."""
        return self._says("ease")

    @property
    def aligned(self) -> bool:
        """Whether it is known which words of source and target belong together."""
        return self._says("alignment")

    def _says(self, key: str) -> bool:
        """Whether it says where its rows have this; not every kind of corpus can."""
        return getattr(self, key, None) is not None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.tag and not self.paired:
            raise ValueError("tag: there are no sources to put it before; leave it out")
        if self.group and self.weighted:
            raise ValueError("group: rows with weights of their own stay apart; leave one out")
        if self.group and self.graded:
            raise ValueError("group: rows that are easy by themselves stay apart; leave one out")
        if self.group and self.aligned:
            raise ValueError("group: an alignment is of one target; leave one out")
        return self

    @property
    def reserved(self) -> tuple[str, ...]:
        """The symbols that are no pieces of text, which the source needs for this corpus."""
        return (self.tag,) if self.tag else ()

    def encoded(self) -> dict[str, Any]:
        """Return the settings that decide what is encoded; what is not set is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """The files, relative to the folder of the experiment."""

    @abstractmethod
    def rows(self, base: Path) -> Iterator[Row | Fault]:
        """Yield what the files hold, unchecked."""

    def read(self, base: Path, skipped: Skipped) -> Iterator[Example]:
        """Yield the examples; ``skipped`` learns what is left out.

        Paths are relative to ``base``. Memory does not grow with the corpus, except to ``group``.

        Raises:
            Problem: a file cannot be read, a line is faulty, or there is no example at all.
        """
        rows = self._sound(base, skipped)
        empty = True
        for row in _grouped(rows) if self.group else rows:
            empty = False
            references = tuple(line.text for line in row.references)
            source = f"{self.tag} {row.source.text}" if self.tag else row.source.text
            weights = parse_weights(row.weight.text) if row.weight else (1.0,)
            yield Example(
                {"source": source},
                references,
                row.source.place,
                weight=weights[0] if len(weights) == 1 else 1.0,
                word_weights=weights if len(weights) > 1 else (),
                ease=float(row.ease.text) if row.ease else 0.0,
                alignment=self._alignment(row),
            )
        if empty:
            raise Problem("there is no example in it", str(base / self.files[0]))

    def _alignment(self, row: Row) -> tuple[tuple[int, int], ...]:
        pairs = parse(row.alignment.text) if row.alignment else ()
        first = 1 if self.tag else 0  # a tag is a word before the others
        return tuple((source + first, target) for source, target in pairs)

    def _row(self, source: Line, others: list[Line]) -> Row:
        """Return a row of which the last is what else is known, in the order of the settings."""
        alignment = others.pop() if self.aligned else None
        ease = others.pop() if self.graded else None
        weight = others.pop() if self.weighted else None
        return Row(source, tuple(others), weight, ease, alignment)

    def texts(self, base: Path, side: Literal["source", "target"]) -> Iterator[str]:
        """Yield the texts of a side that its vocabulary is learned from."""
        for example in self.read(base, Skipped()):
            if side == "source":
                yield example.sources["source"]
            else:
                yield from example.references

    def refuse(self, fault: Fault, skipped: Skipped) -> None:
        """Deal with a fault as ``on_bad_line`` says.

        Raises:
            Problem: it says error.
        """
        if self.on_bad_line == "error":
            raise fault.problem()
        skipped.note(fault)

    def _sound(self, base: Path, skipped: Skipped) -> Iterator[Row]:
        for row in self.rows(base):
            fault = row if isinstance(row, Fault) else self._fault(row)
            if fault:
                self.refuse(fault, skipped)
            elif isinstance(row, Row):
                yield row

    def _fault(self, row: Row) -> Fault | None:
        """Return the first thing that is wrong with a row."""
        if fault := _text_fault(row.source, "source", self.max_characters):
            return fault
        faults = (
            *(_text_fault(line, "target", self.max_characters) for line in row.references),
            weight_fault(row.weight, [line.text for line in row.references]),
            _ease_fault(row.ease),
        )
        fault = next(filter(None, faults), None)
        if fault or row.alignment is None:
            return fault
        return alignment_fault(row.alignment, row.source.text, [r.text for r in row.references])


def _text_fault(line: Line, side: str, most: int) -> Fault | None:
    if line.fault:
        return line.fault
    if not line.text or line.text.isspace():
        what = f"the {side} is empty; write it, or take the whole example out"
        return Fault(line.place, f"empty {side}", what)
    if len(line.text) > most:
        what = (
            f"the {side} has {len(line.text)} characters, more than {most}; shorten it or raise "
            "max_characters"
        )
        return Fault(line.place, f"too long a {side}", what)
    if "\0" in line.text:
        what = f"the {side} holds a NUL character; remove it, or convert the file if it is UTF-16"
        return Fault(line.place, "NUL", what)
    return None


def _ease_fault(line: Line | None) -> Fault | None:
    if line is None or line.fault:
        return line and line.fault
    try:
        if math.isfinite(float(line.text)):
            return None
    except ValueError:
        pass
    what = f"the ease {line.text[:30]!r} is no number; write one, such as 0.5"
    return Fault(line.place, "wrong ease", what)


def _grouped(rows: Iterable[Row]) -> Iterator[Row]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.source.text, []).append(row)
    for group in groups.values():
        yield Row(group[0].source, tuple(line for row in group for line in row.references))


def several(names: Names) -> tuple[str, ...]:
    """Return one name, or several, as several."""
    return (names,) if isinstance(names, str) else names


class ParallelBlueprint(CorpusBlueprint):
    """Files whose lines belong together: line 7 of the source, line 7 of each target."""

    kind: Literal["parallel"] = "parallel"
    source: str
    """the file of sources"""
    target: Names
    """the file of targets, or several files: as many references of each source"""
    weight: str | None = None
    """the file of weights, a number a line: what the loss of each example counts"""
    ease: str | None = None
    """the file of how easy each example is, a number a line, for a curriculum of what is given"""
    alignment: str | None = None
    """the file of alignments, such as 0-0 2-1 a line: places of words, source before target"""

    @property
    def files(self) -> tuple[str, ...]:
        more = filter(None, (self.weight, self.ease, self.alignment))
        return (self.source, *several(self.target), *more)

    def rows(self, base: Path) -> Iterator[Row]:
        paths = [base / name for name in self.files]
        for number, lines in enumerate(zip_longest(*map(read_lines, paths)), 1):
            found = [line for line in lines if line]
            if len(found) < len(paths):
                short, long = paths[lines.index(None)], found[0].place.rpartition(":")[0]
                what = f"this line is missing, but {long} goes on; give every line its counterpart"
                raise Problem(what, f"{short}:{number}")
            yield self._row(found[0], found[1:])


class FilesBlueprint(CorpusBlueprint):
    """A corpus that is one file, or several of the same kind."""

    path: Names
    """the file, or several files to be read one after the other"""

    @property
    def files(self) -> tuple[str, ...]:
        return several(self.path)
