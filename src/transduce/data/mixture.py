"""Several corpora as one, the small ones taken more often than their size says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from transduce.data.batch import Batch, Example
from transduce.data.follow import FollowBlueprint, Measured
from transduce.data.lines import Fault, Skipped
from transduce.data.read import CorpusBlueprint, Row
from transduce.data.rows import Counts, Picks, Rows
from transduce.data.shuffle import permute
from transduce.data.weights import beside
from transduce.sequences import Sequences

ITSELF = ("group", "max_characters", "on_bad_line", "tag")  # what each corpus says for itself


class MixtureBlueprint(CorpusBlueprint):
    """Several corpora, of any kinds, each with its own settings."""

    kind: Literal["mixture"] = "mixture"
    of: tuple[CorpusBlueprint, ...] = Field(min_length=2)
    """the corpora"""
    temperature: float = Field(1.0, ge=1)
    """a corpus has a share of the epoch as its size to the power of 1 / temperature: 1 takes every
    example once, 5 makes the small ones larger, a large number makes all alike"""
    epoch: int | None = Field(None, ge=1)
    """rows of an epoch, about; null takes as many as there are in all"""
    follow: FollowBlueprint | None = None
    """how shares follow the loss of each corpus on its own dev set, anew where an epoch begins;
    null leaves them alone"""

    @model_validator(mode="after")
    def _says_only_what_counts(self) -> MixtureBlueprint:
        for name in ITSELF:
            if getattr(self, name) != CorpusBlueprint.model_fields[name].default:
                raise ValueError(f"{name}: each corpus of a mixture says that for itself")
        for corpus in self.of:
            if isinstance(corpus, MixtureBlueprint):
                raise ValueError("of: a mixture in a mixture; name its corpora here")
            if not corpus.paired:
                raise ValueError(f"of: {corpus.kind} text has no sources; denoise makes some of it")
        if self.follow is not None:
            self.follow.require(len(self.of))
        return self

    @property
    def denoises(self) -> bool:
        return any(corpus.denoises for corpus in self.of)

    @property
    def divides(self) -> bool:
        return any(corpus.divides for corpus in self.of)

    @property
    def weighted(self) -> bool:
        return any(corpus.weighted for corpus in self.of)

    @property
    def graded(self) -> bool:
        return any(corpus.graded for corpus in self.of)

    @property
    def aligned(self) -> bool:
        return any(corpus.aligned for corpus in self.of)

    @property
    def reserved(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(mark for corpus in self.of for mark in corpus.reserved))

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(name for corpus in self.of for name in corpus.files)

    def rows(self, base: Path) -> Iterator[Row | Fault]:
        for corpus in self.of:
            yield from corpus.rows(base)

    def read(self, base: Path, skipped: Skipped) -> Iterator[Example]:
        for corpus in self.of:
            yield from corpus.read(base, skipped)

    def texts(self, base: Path, side: Literal["source", "target"]) -> Iterator[str]:
        for corpus in self.of:
            yield from corpus.texts(base, side)


class Mixed(Rows):
    """The rows of several corpora, one corpus after the other.

    The turns of an epoch are divided among the corpora by their sizes to the power of 1 /
    temperature (Arivazhagan 2019), exactly. Each corpus goes through all of its rows, in an order
    that is drawn anew each time, before any comes up again, and goes on in the next epoch where it
    has stopped. With ``follow``, sizes are multiplied by what has been measured when an epoch
    begins.
    """

    def __init__(
        self,
        parts: Sequence[Rows],
        temperature: float = 1.0,
        epoch: int | None = None,
        follow: FollowBlueprint | None = None,
    ) -> None:
        self.parts, self.follow = parts, follow
        self.course: Sequence[Measured] = ()
        self.noised = any(part.noised for part in parts)
        prints = " ".join(part.fingerprint for part in parts)
        self.fingerprint = hashlib.sha256(prints.encode()).hexdigest()
        self._starts = _sums(len(part) for part in parts)
        self._examples = _sums(part.examples for part in parts)
        self._sizes = np.diff(self._starts).astype(np.float64) ** (1 / temperature)
        self._epoch = epoch or len(self)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def examples(self) -> int:
        return int(self._examples[-1])

    @property
    def variants(self) -> dict[str, int]:
        return self.parts[0].variants

    @property
    def counts(self) -> dict[str, Counts]:
        together = {}
        for side in self.parts[0].counts:
            own = [part.counts[side] for part in self.parts]
            together[side] = Counts(
                sum(counts.texts for counts in own),
                sum(counts.symbols for counts in own),
                sum(counts.unknown for counts in own),
                max(counts.longest for counts in own),
            )
        return together

    @property
    def skipped(self) -> Skipped:
        together = Skipped()
        for part in self.parts:
            together.add(part.skipped)
        return together

    def starts(self) -> NDArray[np.int64]:
        return np.concatenate(
            [part.starts() + start for part, start in zip(self.parts, self._starts, strict=False)]
        )

    def following(self, course: Sequence[Measured]) -> Mixed:
        made = copy(self)
        made.course = course
        return made

    def shares(self, epoch: int) -> NDArray[np.int64]:
        """Return how many turns each corpus has in an epoch."""
        sizes = self._sizes
        known = [measured.losses for measured in self.course if measured.epoch <= epoch]
        if self.follow is not None and known:
            sizes = sizes * self.follow.factors(np.array(known))
        shares: NDArray[np.float64] = np.rint(sizes / sizes.sum() * self._epoch)
        return shares.clip(min=1).astype(np.int64)

    def turns(self, epoch: int) -> int:
        return int(self.shares(epoch).sum())

    def drawn(self, turns: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        rows = np.empty_like(turns)
        firsts, before = _sums(self.shares(epoch)), self._before(epoch)
        for number, own in self._divided(turns, firsts):
            size = len(self.parts[number])
            # The turns of this corpus, counted from the beginning of training.
            rounds, places = np.divmod(turns[own] - firsts[number] + before[number], size)
            found = np.empty_like(places)
            for one in np.unique(rounds):
                here = rounds == one
                found[here] = permute(places[here], size, seed, int(one), number)
            rows[own] = found + self._starts[number]
        return rows

    def lengths(self, rows: NDArray[np.int64], picks: Picks | None = None) -> NDArray[np.int64]:
        found = np.empty((len(self.variants), len(rows)), np.int64)
        for number, own in self._divided(rows, self._starts):
            local = rows[own] - self._starts[number]
            found[:, own] = self.parts[number].lengths(local, _of(picks, own))
        return found

    def batch(self, rows: NDArray[np.int64], picks: Picks | None = None) -> Batch:
        places, batches = [], []
        for number, own in self._divided(rows, self._starts):
            local = rows[own] - self._starts[number]
            batches.append(self.parts[number].batch(local, _of(picks, own)))
            places.append(np.flatnonzero(own))
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        sources = {
            side: _together([batch.sources[side] for batch in batches], back)
            for side in batches[0].sources
        }
        target = _together([b.target for b in batches if b.target is not None], back)
        weights = None
        if any(batch.weights is not None for batch in batches):
            # Where others have weights, a corpus without counts as it stands.
            each = [torch.ones(len(b), 1) if b.weights is None else b.weights for b in batches]
            weights = beside(each, target.size - 1)[back]
        alignment = None
        if any(batch.alignment is not None for batch in batches):
            alignment = _together(
                [batch.alignment or _unknown(len(batch)) for batch in batches], back
            )
        return Batch(sources, target, torch.from_numpy(rows), weights, alignment)

    def beyond(self, side: str, most: int) -> Fault | None:
        faults = (part.beyond(side, most) for part in self.parts)
        return next(filter(None, faults), None)

    def largest(self, side: str) -> int:
        return max(part.largest(side) for part in self.parts)

    def example(self, index: int) -> Example:
        number = int(np.searchsorted(self._examples, index, side="right")) - 1
        return self.parts[number].example(index - int(self._examples[number]))

    def _before(self, epoch: int) -> NDArray[np.int64]:
        """Return how many turns each corpus had before an epoch."""
        changed = {measured.epoch for measured in self.course if measured.epoch < epoch}
        total = np.zeros(len(self.parts), np.int64)
        for first, last in pairwise(sorted({0, *changed, epoch})):
            total += self.shares(first) * (last - first)
        return total

    def _divided(
        self, numbers: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield each corpus that some of the numbers belong to, and which these are."""
        owners = np.searchsorted(starts, numbers, side="right") - 1
        for number in range(len(self.parts)):
            own = owners == number
            if own.any():
                yield number, own


def _sums(sizes: Iterable[int]) -> NDArray[np.int64]:
    return np.array([0, *accumulate(sizes)], np.int64)


def _of(picks: Picks | None, own: NDArray[np.bool_]) -> Picks | None:
    return None if picks is None else {name: picked[own] for name, picked in picks.items()}


def _unknown(rows: int) -> Sequences:
    """Return the alignments of a corpus without any."""
    return Sequences(torch.zeros(rows, 0, 2, dtype=torch.long), torch.zeros(rows, dtype=torch.long))


def _together(parts: Sequence[Sequences], order: Int[Tensor, "B"]) -> Sequences:
    rows = [row[:size] for part in parts for row, size in zip(part.data, part.lengths, strict=True)]
    return Sequences.stack([rows[place] for place in order.tolist()])
