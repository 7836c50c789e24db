"""A corpus encoded once: arrays on disk, in a folder named by all that went into them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from transduce import folder
from transduce.data.alignment import SOURCE, Alignments
from transduce.data.batch import Batch, Example
from transduce.data.digest import digest
from transduce.data.encode import (
    EASES,
    FACTS,
    TARGET,
    Encoding,
    Facts,
    LimitsBlueprint,
    encode,
)
from transduce.data.lines import Fault, Skipped
from transduce.data.ragged import Ragged
from transduce.data.read import CorpusBlueprint
from transduce.data.rows import Counts, Picks, Rows
from transduce.data.weights import StoredWeights
from transduce.problem import Problem

__all__ = ["TARGET", "Encoding", "LimitsBlueprint", "Store", "prepare"]

FORMAT = 1  # of the files; raise it whenever the same corpus is to be encoded anew


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
    weights: StoredWeights | None = None
    eases: NDArray[np.float64] | None = field(default=None, repr=False)  # of the examples
    alignments: Alignments | None = None

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
        if self.variants[side] == 1 and self.counts[side].longest < most:
            return None
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
        weights = None
        if self.weights is not None:
            places = self._places(TARGET, rows, picks)
            weights = self.weights.gather(self._examples(rows), places, target.size - 1)
        alignment = None
        if self.alignments is not None:
            sides = (self._places(side, rows, picks) for side in (SOURCE, TARGET))
            alignment = self.alignments.gather(rows, *sides)
        return Batch(gathered, target, torch.from_numpy(rows), weights, alignment)

    def ease(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        if self.eases is None:
            return super().ease(rows)
        return self.eases[self._examples(rows)]

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


def prepare(corpus: CorpusBlueprint, base: Path, encoding: Encoding, cache: Path) -> Store:
    """Open the store of a corpus in the folder ``cache``; make it if it is not there.

    The corpus is hashed every time (a large file if it has changed) and read only once: a store is
    found by the content of the files, the settings of the corpus, and the encoding. Making it takes
    little memory, and a store is there whole or not at all.

    Raises:
        Problem: the corpus cannot be read, or the store is damaged.
    """
    fingerprint = _fingerprint(corpus, base, encoding, cache)

    def unchanged() -> bool:
        return _fingerprint(corpus, base, encoding, cache) == fingerprint

    # Places in the store begin with ``base``; nothing else depends on it.
    target = cache / hashlib.sha256(f"{fingerprint} {base}".encode()).hexdigest()[:32]
    if not target.exists():
        with folder.alone(cache, wait=True):
            if not target.exists():
                folder.write(target, lambda path: _make(path, corpus, base, encoding, unchanged))
    return _open(target, fingerprint)


def _fingerprint(corpus: CorpusBlueprint, base: Path, encoding: Encoding, cache: Path) -> str:
    hashes = [digest(base / name, cache) for name in corpus.files]
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
        targets = facts.rows * facts.variants[TARGET]
        weights = StoredWeights.open(path, facts.examples, targets)
        eases = None
        if (path / EASES).exists():
            eases = np.asarray(np.memmap(path / EASES, "<f8", "r", shape=(facts.examples,)))
    except (OSError, ValueError) as error:
        what = f"the store is damaged ({error.__class__.__name__}); delete this folder"
        raise Problem(what, str(path)) from None
    texts, symbols = {}, {}
    for side, dtype in facts.dtypes.items():
        count = facts.counts[side].texts
        texts[side] = Ragged.open(path, f"{side}.text", "u1", count)
        symbols[side] = Ragged.open(path, side, dtype, count * facts.variants[side])
    places = Ragged.open(path, "places", "u1", facts.examples)
    alignments = Alignments.open(path, facts.rows, facts.variants)
    return Store(fingerprint, facts, symbols, texts, places, first, weights, eases, alignments)


def _make(
    path: Path,
    corpus: CorpusBlueprint,
    base: Path,
    encoding: Encoding,
    unchanged: Callable[[], bool],
) -> None:
    """Fill the folder ``path`` with a store of files that stay unchanged."""
    encode(path, corpus, base, encoding)
    if not unchanged():
        raise Problem("a file changed while it was read; start again", str(base / corpus.files[0]))
