"""Text in one language as a corpus: the source is the text with noise, the target undoes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from transduce.data.batch import Batch, Example
from transduce.data.lines import Fault, Skipped, read_lines
from transduce.data.noise import InfillBlueprint, NoiseBlueprint
from transduce.data.read import FilesBlueprint, Row
from transduce.data.rows import NOISE, Counts, Picks, Rows
from transduce.data.shuffle import scramble, uniform
from transduce.data.store import Store
from transduce.sequences import Sequences
from transduce.text.codec import TextCodec
from transduce.text.vocabulary import BOS, EOS


class DenoiseBlueprint(FilesBlueprint):
    """Text in one language, a line each, to be made whole again (self-supervision)."""

    kind: Literal["denoise"] = "denoise"
    noise: tuple[NoiseBlueprint, ...] = Field((InfillBlueprint(),), min_length=1)
    """what is done to a text, one after the other, anew in every epoch"""

    @model_validator(mode="after")
    def _can_be_undone(self) -> DenoiseBlueprint:
        dividing = [noise.kind for noise in self.noise if noise.divides]
        if dividing and len(self.noise) > 1:
            raise ValueError(
                f"noise: {dividing[0]} divides a text between source and target, which nothing can "
                "go before or come after; let it stand alone (a mixture has corpora of both kinds)"
            )
        if self.group:
            raise ValueError("group: a text that is its own reference has no other; leave it out")
        return self

    @property
    def denoises(self) -> bool:
        return True

    @property
    def divides(self) -> bool:
        return self.noise[0].divides

    @property
    def reserved(self) -> tuple[str, ...]:
        marks = [mark for noise in self.noise for mark in noise.marks]
        return tuple(dict.fromkeys([*super().reserved, *marks]))

    def encoded(self) -> dict[str, Any]:
        return {key: value for key, value in super().encoded().items() if key != "noise"}

    def rows(self, base: Path) -> Iterator[Row]:
        for name in self.files:
            yield from (Row(line, (line,)) for line in read_lines(base / name))

    def texts(self, base: Path, side: Literal["source", "target"]) -> Iterator[str]:
        return super().texts(base, side) if side == "source" else iter(())


class Denoising(Rows):
    """The rows of an encoded corpus of texts, with noise on their sources.

    The noise of a row is a function of its pick and takes no room; without picks it is a function
    of the row, always the same one.
    """

    noised = True

    def __init__(self, store: Store, corpus: DenoiseBlueprint, codec: TextCodec) -> None:
        self.store, self.corpus, self.codec = store, corpus, codec
        self.fingerprint = store.fingerprint
        self._noises = [noise.build(codec) for noise in corpus.noise]
        self._before = np.array(codec.encode(corpus.tag) if corpus.tag else [], np.int64)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def examples(self) -> int:
        return self.store.examples

    @property
    def variants(self) -> dict[str, int]:
        return self.store.variants

    @property
    def counts(self) -> dict[str, Counts]:
        return self.store.counts

    @property
    def skipped(self) -> Skipped:
        return self.store.skipped

    def starts(self) -> NDArray[np.int64]:
        return self.store.starts()

    def lengths(self, rows: NDArray[np.int64], picks: Picks | None = None) -> NDArray[np.int64]:
        _, lengths = self.store.lengths(rows, picks)
        source = target = lengths - 1
        for noise in self.corpus.noise:
            source, target = noise.longest(lengths - 1)
        return np.stack([source + len(self._before) + 1, target + 1])

    def batch(self, rows: NDArray[np.int64], picks: Picks | None = None) -> Batch:
        clean = self.store.batch(rows, picks)
        assert clean.target is not None
        keys = scramble(rows, 0) if picks is None else picks[NOISE]
        sources, targets = [], []
        for source, target in self._noised(clean.target, keys):
            sources.append(torch.from_numpy(np.concatenate([self._before, source, [EOS]])))
            targets.append(torch.from_numpy(np.concatenate([[BOS], target, [EOS]])))
        return replace(
            clean,
            sources={"source": Sequences.stack(sources)},
            target=Sequences.stack(targets),
        )

    def beyond(self, side: str, most: int) -> Fault | None:
        return self.store.beyond(side, most)  # noise makes no text longer

    def largest(self, side: str) -> int:
        return self.store.largest(side)

    def example(self, index: int) -> Example:
        batch = self.batch(np.array([index]))
        assert batch.target is not None
        source, target = batch.sources["source"].data[0], batch.target.data[0]
        references = (self.codec.decode(target.tolist()),) if self.corpus.divides else None
        clean = self.store.example(index)
        return Example(
            {"source": self.codec.decode(source.tolist())},
            references or clean.references,
            clean.place,
        )

    def _noised(
        self, clean: Sequences, keys: NDArray[np.integer[Any]]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield source and target of each row, without what begins and ends them."""
        count = 2 * clean.size + 2
        numbers = [uniform(keys, count, place) for place in range(len(self._noises))]
        texts, lengths = clean.data.numpy(), clean.lengths.numpy() - 1
        for row, (text, end) in enumerate(zip(texts, lengths, strict=True)):
            source = target = text[1:end]
            for noise, drawn in zip(self._noises, numbers, strict=True):
                found = noise(source, drawn[row])
                source = found.source
                target = target if found.target is None else found.target
            yield source, target
