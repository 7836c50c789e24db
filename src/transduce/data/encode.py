"""From examples to arrays on disk, by one process or by several: the bytes are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from pydantic import Field

from transduce import folder
from transduce.blueprint import Blueprint
from transduce.data.alignment import Links, LinksWriter, link
from transduce.data.batch import Example
from transduce.data.in_order import in_order
from transduce.data.lines import Fault, Skipped
from transduce.data.ragged import RaggedWriter
from transduce.data.read import CorpusBlueprint
from transduce.data.rows import Counts
from transduce.data.weights import WeightsWriter, of_labels
from transduce.problem import Problem
from transduce.text.codec import TextCodec
from transduce.text.vocabulary import BOS, EOS, UNK

TARGET = "target"  # the codec of that name is the target's, any other one that of a source
FACTS = "facts.json"
EASES = "eases"
CHUNK: Final = 250  # examples that are encoded together
ALONE: Final = 80  # chunks that one process encodes before it is worth to have several


class LimitsBlueprint(Blueprint):
    """The most symbols that a text may have; a longer one is a fault, and never cut."""

    source: int = Field(1024, ge=1)
    """in a source"""
    target: int = Field(1024, ge=1)
    """in a target"""


@dataclass(frozen=True)
class Facts:
    """What the arrays of a store do not say themselves."""

    examples: int
    rows: int
    dtypes: dict[str, str]
    variants: dict[str, int]
    counts: dict[str, Counts]
    skipped: dict[str, int]
    places: dict[str, list[str]]


class Encoded(NamedTuple):
    """A text of one side."""

    side: str
    text: str
    variants: list[list[int]]  # the best one first


class Column(NamedTuple):
    """Texts of one side, one after the other."""

    values: bytes  # symbols, with BOS and EOS
    lengths: list[int]  # of all variants
    text: bytes
    text_lengths: list[int]
    unknown: int
    longest: int


class Chunk(NamedTuple):
    """Examples as they are written."""

    columns: dict[str, Column]
    places: list[bytes]
    references: list[int]  # how many each example has
    weights: list[float]
    label_weights: list[list[float]]  # of a weighted corpus, of each variant of its targets
    eases: list[float]
    faults: list[Fault]  # why others are not there
    links: list[Links]  # of an aligned corpus


class Extras(NamedTuple):
    """What a corpus says of its examples beside their texts."""

    weighted: bool = False
    aligned: bool = False


@dataclass(frozen=True)
class Encoding:
    """How examples become rows of symbols."""

    codecs: Mapping[str, TextCodec]  # of the sources and of the target
    limits: LimitsBlueprint
    sampled: bool = False  # store the variants that the codecs want for training
    slots: int = 0  # numbers behind the vocabulary for what is new in each source
    processes: int = 1  # that encode a large corpus

    def variants(self, side: str) -> int:
        """Return how many encodings of each text are stored."""
        return self.codecs[side].variants if self.sampled else 1

    def encode(self, example: Example) -> list[Encoded] | Fault:
        """Encode the sources and all references."""
        texts = [*example.sources.items(), *((TARGET, text) for text in example.references)]
        codecs, encoded = self._reading(example), []
        for side, text in texts:
            most = self.limits.target if side == TARGET else self.limits.source
            best, *others = codecs[side].alternatives(text, self.variants(side), seed=0)
            if len(best) > most:
                what = f"the {side} has {len(best)} symbols, more than {most}"
                what += "; shorten it, raise the limit, or set on_bad_line: skip"
                return Fault(example.place, f"too many symbols in a {side}", what)
            fitting = [other if len(other) <= most else best for other in others]
            encoded.append(Encoded(side, text, [best, *fitting]))
        return encoded

    def _reading(self, example: Example) -> Mapping[str, TextCodec]:
        """Return the codecs that know what is new in the source."""
        if self.slots == 0:
            return self.codecs
        source = example.sources["source"]
        return {side: codec.reading(source, self.slots) for side, codec in self.codecs.items()}

    def dtype(self, side: str) -> str:
        """Return the type of numbers that all symbols of a side fit into."""
        return "<u2" if self.codecs[side].size + self.slots <= 2**16 else "<u4"

    def sides(self) -> list[str]:
        """Return the names of the sides, the target last."""
        return [*(side for side in self.codecs if side != TARGET), TARGET]

    def chunk(self, examples: Sequence[Example], more: Extras) -> Chunk:
        """Encode examples together, with what else there is."""
        sides: dict[str, list[Encoded]] = {side: [] for side in self.sides()}
        chunk = Chunk({}, [], [], [], [], [], [], [])
        for example in examples:
            encoded = self.encode(example)
            if isinstance(encoded, Fault):
                chunk.faults.append(encoded)
                continue
            fault = self._add(chunk, example, encoded, more)
            if fault:
                chunk.faults.append(fault)
                continue
            for one in encoded:
                sides[one.side].append(one)
            chunk.places.append(example.place.encode())
            chunk.references.append(len(example.references))
            chunk.weights.append(example.weight)
            chunk.eases.append(example.ease)
        chunk.columns.update((side, self._column(side, found)) for side, found in sides.items())
        return chunk

    def _add(
        self, chunk: Chunk, example: Example, encoded: Sequence[Encoded], more: Extras
    ) -> Fault | None:
        """Add what is known of the words of an example; return what is wrong with that."""
        codecs = self._reading(example) if more.aligned or example.word_weights else self.codecs
        links: Links | Fault | None = None
        labels: list[list[float]] | Fault = []
        if more.aligned:
            links = link(example, {one.side: one.variants for one in encoded}, codecs)
        if more.weighted:
            targets = [ids for one in encoded if one.side == TARGET for ids in one.variants]
            labels = of_labels(example, targets, codecs[TARGET])
        if isinstance(links, Fault):
            return links
        if isinstance(labels, Fault):
            return labels
        chunk.label_weights.extend(labels)
        if links:
            chunk.links.append(links)
        return None

    def _column(self, side: str, found: Sequence[Encoded]) -> Column:
        start = [BOS] if side == TARGET else []
        rows = [[*start, *ids, EOS] for one in found for ids in one.variants]
        texts = [one.text.encode() for one in found]
        return Column(
            np.array([id for row in rows for id in row], self.dtype(side)).tobytes(),
            list(map(len, rows)),
            b"".join(texts),
            list(map(len, texts)),
            sum(one.variants[0].count(UNK) for one in found),
            max((len(one.variants[0]) for one in found), default=0),
        )


def encode(path: Path, corpus: CorpusBlueprint, base: Path, encoding: Encoding) -> None:
    """Write the arrays of a corpus and the facts about them.

    Raises:
        Problem: the corpus cannot be read or encoded.
    """
    skipped = Skipped()
    chunks = _chunks(corpus.read(base, skipped))
    work = partial(encoding.chunk, more=Extras(corpus.weighted, corpus.aligned))
    alone = map(work, islice(chunks, ALONE))
    with ExitStack() as files:
        writer = _Writer(path, encoding, files, corpus)
        for part in (alone, in_order(work, chunks, encoding.processes)):
            for chunk in part:
                for fault in chunk.faults:
                    corpus.refuse(fault, skipped)
                writer.add(chunk)
        writer.end()
    if not writer.examples:
        raise Problem("no example is left of it", str(base / corpus.files[0]))
    folder.write_json(path / FACTS, asdict(writer.facts(skipped)))


def _chunks(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Yield examples together; what cannot be read is a problem after all that stands before it."""
    chunk: list[Example] = []
    try:
        for example in examples:
            chunk.append(example)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
    except Problem:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


class _Writer:
    """The files of a store while they grow."""

    def __init__(
        self, path: Path, encoding: Encoding, files: ExitStack, corpus: CorpusBlueprint
    ) -> None:
        self.encoding = encoding
        self.columns = {
            side: (
                files.enter_context(RaggedWriter(path, side, encoding.dtype(side))),
                files.enter_context(RaggedWriter(path, f"{side}.text", "u1")),
            )
            for side in encoding.sides()
        }
        self.counts = dict.fromkeys(self.columns, Counts(0, 0, 0, 0))
        self.places = files.enter_context(RaggedWriter(path, "places", "u1"))
        self.first = files.enter_context((path / "first").open("wb"))
        self.weights = WeightsWriter(path, files) if corpus.weighted else None
        self.eases = files.enter_context((path / EASES).open("wb")) if corpus.graded else None
        self.links = LinksWriter(path, files) if corpus.aligned else None
        self.examples = self.rows = 0

    def add(self, chunk: Chunk) -> None:
        for side, column in chunk.columns.items():
            symbols, texts = self.columns[side]
            symbols.extend(column.values, column.lengths)
            texts.extend(column.text, column.text_lengths)
            self.counts[side] = self._counted(side, column)
        self.places.extend(b"".join(chunk.places), list(map(len, chunk.places)))
        ends = self.rows + np.cumsum([0, *chunk.references], dtype="<i8")
        self.first.write(ends[:-1].tobytes())
        if self.weights:
            self.weights.extend(chunk.weights, chunk.label_weights)
        if self.eases:
            self.eases.write(np.array(chunk.eases, "<f8").tobytes())
        if self.links:
            self.links.extend(chunk.links)
        self.examples += len(chunk.references)
        self.rows = int(ends[-1])

    def _counted(self, side: str, column: Column) -> Counts:
        before, start = self.counts[side], 2 if side == TARGET else 1
        best = column.lengths[:: self.encoding.variants(side)]
        return Counts(
            before.texts + len(best),
            before.symbols + sum(best) - start * len(best),
            before.unknown + column.unknown,
            max(before.longest, column.longest),
        )

    def end(self) -> None:
        self.first.write(self.rows.to_bytes(8, "little"))

    def facts(self, skipped: Skipped) -> Facts:
        return Facts(
            examples=self.examples,
            rows=self.rows,
            dtypes={side: self.encoding.dtype(side) for side in self.columns},
            variants={side: self.encoding.variants(side) for side in self.columns},
            counts=self.counts,
            skipped=dict(sorted(skipped.counts.items())),
            places=dict(sorted(skipped.places.items())),
        )
