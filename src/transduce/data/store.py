"""A corpus encoded once: arrays on disk, in a folder named by all that went into them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from transduce import folder
from transduce.blueprint import Blueprint
from transduce.data.batch import Batch, Example
from transduce.data.lines import Fault, Skipped, open_file
from transduce.data.ragged import Ragged, RaggedWriter
from transduce.data.read import CorpusBlueprint
from transduce.data.rows import Counts, Picks, Rows
from transduce.problem import Problem
from transduce.text.codec import TextCodec
from transduce.text.vocabulary import BOS, EOS, UNK

FORMAT = 1  # of the files; raise it whenever the same corpus is to be encoded anew
TARGET = "target"  # the codec of that name is the target's, any other one that of a source
FACTS = "facts.json"
WEIGHTS = "weights"


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


@dataclass(frozen=True)
class Store(Rows):
    """An encoded corpus, mapped into memory.

    A row is a source with one of its references: an example with three references is three rows.
    """

    fingerprint: str  # of all that the content follows from
    facts: Facts
    symbols: dict[str, Ragged]  # of each side, the variants of a text adjacent; target last
    texts: dict[str, Ragged]
    places: Ragged
    first: NDArray[np.int64] = field(repr=False)  # row of each example, then the number of rows
    weights: NDArray[np.float64] | None = field(default=None, repr=False)  # of the examples

    def __len__(self) -> int:
        return self.facts.rows

    @property
    def examples(self) -> int:
        return self.facts.examples

    @property
    def variants(self) -> dict[str, int]:
        return self.facts.variants

    @property
    def counts(self) -> dict[str, Counts]:
        return self.facts.counts

    @property
    def skipped(self) -> Skipped:
        return Skipped(Counter(self.facts.skipped), self.facts.places)

    def lengths(self, rows: NDArray[np.int64], picks: Picks | None = None) -> NDArray[np.int64]:
        lengths = {
            side: array.lengths(self._places(side, rows, picks))
            for side, array in self.symbols.items()
        }
        lengths[TARGET] -= 1
        return np.stack(list(lengths.values()))

    def beyond(self, side: str, most: int) -> Fault | None:
        lengths = np.diff(self.symbols[side].ends) - (side == TARGET)
        found = np.flatnonzero(lengths > most)
        if not len(found):
            return None
        text = int(found[0]) // self.variants[side]
        index = int(np.searchsorted(self.first, text, side="right")) - 1 if side == TARGET else text
        what = f"the {side} has {lengths[found[0]]} symbols with its end, more than {most}"
        return Fault(self.places.text(index), "too many symbols for the model", what)

    def starts(self) -> NDArray[np.int64]:
        return self.first[:-1]

    def largest(self, side: str) -> int:
        return int(self.symbols[side].values.max())

    def batch(self, rows: NDArray[np.int64], picks: Picks | None = None) -> Batch:
        gathered = {
            side: array.gather(self._places(side, rows, picks))
            for side, array in self.symbols.items()
        }
        target = gathered.pop(TARGET)
        weights = None if self.weights is None else torch.from_numpy(self._weights(rows)).float()
        return Batch(gathered, target, torch.from_numpy(rows), weights)

    def _weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        assert self.weights is not None
        return self.weights[self._examples(rows)]

    def _examples(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the example that each row belongs to."""
        if self.examples == len(self):
            return rows
        return np.searchsorted(self.first, rows, side="right") - 1

    def sources(self, examples: NDArray[np.int64]) -> Batch:
        """Return the sources of examples, without targets; ``index`` are the examples."""
        return Batch(self.batch(self.first[examples]).sources, None, torch.from_numpy(examples))

    def example(self, index: int) -> Example:
        sources = {side: text.text(index) for side, text in self.texts.items() if side != TARGET}
        rows = range(self.first[index], self.first[index + 1])
        references = tuple(self.texts[TARGET].text(row) for row in rows)
        return Example(sources, references, self.places.text(index))

    def place(self, row: int) -> str:
        """Return where the example of a row was read, as file:line."""
        return self.places.text(self.index(row))

    def _places(self, side: str, rows: NDArray[np.int64], picks: Picks | None) -> NDArray[np.int64]:
        """Return where the encodings of rows stand on one side."""
        places = (rows if side == TARGET else self._examples(rows)) * self.variants[side]
        return places + picks[side] if picks and side in picks else places


class Encoded(NamedTuple):
    """A text of one side."""

    side: str
    text: str
    variants: list[list[int]]  # the best one first


@dataclass(frozen=True)
class Encoding:
    """How examples become rows of symbols."""

    codecs: Mapping[str, TextCodec]  # of the sources and of the target
    limits: LimitsBlueprint
    sampled: bool = False  # store the variants that the codecs want for training
    slots: int = 0  # numbers behind the vocabulary for what is new in each source

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


def prepare(corpus: CorpusBlueprint, base: Path, encoding: Encoding, cache: Path) -> Store:
    """Open the store of a corpus in the folder ``cache``; make it if it is not there.

    The corpus is hashed every time and read only once: a store is found by the content of the
    files, the settings of the corpus, and the encoding. Making it takes little memory, and a store
    is there whole or not at all.

    Raises:
        Problem: the corpus cannot be read, or the store is damaged.
    """
    fingerprint = _fingerprint(corpus, base, encoding)
    # Places in the store begin with ``base``; nothing else depends on it.
    target = cache / hashlib.sha256(f"{fingerprint} {base}".encode()).hexdigest()[:32]
    if not target.exists():
        with folder.alone(cache, wait=True):
            if not target.exists():
                folder.write(target, lambda path: _make(path, corpus, base, encoding, fingerprint))
    return _open(target, fingerprint)


def _fingerprint(corpus: CorpusBlueprint, base: Path, encoding: Encoding) -> str:
    hashes = []
    for name in corpus.files:
        with open_file(base / name) as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    parts = {
        "format": FORMAT,
        "files": hashes,
        "corpus": corpus.encoded(),
        "limits": encoding.limits.model_dump(mode="json"),
        "codecs": {
            side: [codec.fingerprint, encoding.variants(side)]
            for side, codec in encoding.codecs.items()
        },
    }
    if encoding.slots:
        parts["slots"] = encoding.slots
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _open(path: Path, fingerprint: str) -> Store:
    try:
        facts = TypeAdapter(Facts).validate_json((path / FACTS).read_bytes())
        first = np.asarray(np.memmap(path / "first", "<i8", "r"))
        if len(first) != facts.examples + 1 or first[-1] != facts.rows:
            raise ValueError("the file first is cut off")
        weights = None
        if (path / WEIGHTS).exists():
            weights = np.asarray(np.memmap(path / WEIGHTS, "<f8", "r", shape=(facts.examples,)))
    except (OSError, ValueError) as error:
        what = f"the store is damaged ({error.__class__.__name__}); delete this folder"
        raise Problem(what, str(path)) from None
    texts, symbols = {}, {}
    for side, dtype in facts.dtypes.items():
        count = facts.counts[side].texts
        texts[side] = Ragged.open(path, f"{side}.text", "u1", count)
        symbols[side] = Ragged.open(path, side, dtype, count * facts.variants[side])
    places = Ragged.open(path, "places", "u1", facts.examples)
    return Store(fingerprint, facts, symbols, texts, places, first, weights)


class _Side:
    """Writes the texts of one side and counts them."""

    def __init__(self, path: Path, side: str, encoding: Encoding, files: ExitStack) -> None:
        self.side, self.encoding = side, encoding
        numbers = encoding.codecs[side].size + encoding.slots
        self.dtype = "<u2" if numbers <= 2**16 else "<u4"
        self.symbols = files.enter_context(RaggedWriter(path, side, self.dtype))
        self.text = files.enter_context(RaggedWriter(path, f"{side}.text", "u1"))
        self.texts = self.count = self.unknown = self.longest = 0

    def add(self, text: str, variants: list[list[int]]) -> None:
        start = [BOS] if self.side == TARGET else []
        for ids in variants:
            self.symbols.add([*start, *ids, EOS])
        self.text.add(text.encode())
        self.texts += 1
        self.count += len(variants[0])
        self.unknown += variants[0].count(UNK)
        self.longest = max(self.longest, len(variants[0]))

    @property
    def counts(self) -> Counts:
        return Counts(self.texts, self.count, self.unknown, self.longest)


def _make(
    path: Path, corpus: CorpusBlueprint, base: Path, encoding: Encoding, fingerprint: str
) -> None:
    """Fill the folder ``path`` with a store of that fingerprint."""
    _encode(path, corpus, base, encoding)
    if _fingerprint(corpus, base, encoding) != fingerprint:
        raise Problem("a file changed while it was read; start again", str(base / corpus.files[0]))


def _encode(path: Path, corpus: CorpusBlueprint, base: Path, encoding: Encoding) -> None:
    """Write the arrays of a corpus and the facts about them."""
    names = [*(side for side in encoding.codecs if side != TARGET), TARGET]
    skipped = Skipped()
    examples = rows = 0
    with ExitStack() as files:
        sides = {name: _Side(path, name, encoding, files) for name in names}
        places = files.enter_context(RaggedWriter(path, "places", "u1"))
        first = files.enter_context((path / "first").open("wb"))
        weights = files.enter_context((path / WEIGHTS).open("wb")) if corpus.weighted else None
        for example in corpus.read(base, skipped):
            encoded = encoding.encode(example)
            if isinstance(encoded, Fault):
                corpus.refuse(encoded, skipped)
                continue
            for one in encoded:
                sides[one.side].add(one.text, one.variants)
            places.add(example.place.encode())
            first.write(rows.to_bytes(8, "little"))
            if weights:
                weights.write(struct.pack("<d", example.weight))
            examples += 1
            rows += len(example.references)
        first.write(rows.to_bytes(8, "little"))
    if not examples:
        raise Problem("no example is left of it", str(base / corpus.files[0]))
    facts = Facts(
        examples=examples,
        rows=rows,
        dtypes={name: side.dtype for name, side in sides.items()},
        variants={name: encoding.variants(name) for name in names},
        counts={name: side.counts for name, side in sides.items()},
        skipped=dict(skipped.counts),
        places=skipped.places,
    )
    folder.write_json(path / FACTS, asdict(facts))
