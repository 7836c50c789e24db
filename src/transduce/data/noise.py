"""Noises: what is done to a text so that undoing it teaches a model to write (and to read).

All that is random is taken from the numbers that a noise is given, so the same numbers give the
same noise. A noise never makes a text longer, and never empty.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from transduce.blueprint import Part
from transduce.text.codec import TextCodec

MASK: Final = "<mask>"
ENDINGS: Final = tuple(".!?…。！？।؟")

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]  # at least 2 n + 2 for n symbols, each from [0, 1)


class Noised(NamedTuple):
    """A text after a noise."""

    source: Ids
    target: Ids | None = None  # what the source leaves to be said; None: the text as it was


Noise = Callable[[Ids, Numbers], Noised]


class NoiseBlueprint(Part):
    """Slot for a noise."""

    divides: ClassVar[bool] = False  # what it takes out of the source is all of the target

    @property
    def marks(self) -> tuple[str, ...]:
        """The symbols that it needs beside those of texts."""
        return ()

    def longest(self, lengths: Ids) -> tuple[Ids, Ids]:
        """Return the most symbols that texts of these lengths make of source and target."""
        return lengths, lengths

    @abstractmethod
    def build(self, codec: TextCodec) -> Noise:
        """Make it for the symbols of a codec."""


class MaskBlueprint(NoiseBlueprint):
    """Some symbols, each by itself, become a mask (Devlin 2019; Lewis 2020)."""

    kind: Literal["mask"] = "mask"
    rate: float = Field(0.15, gt=0, lt=1)
    """how likely a symbol is to be masked"""

    @property
    def marks(self) -> tuple[str, ...]:
        return (MASK,)

    def build(self, codec: TextCodec) -> Noise:
        (mask,) = codec.encode(MASK)

        def noise(ids: Ids, numbers: Numbers) -> Noised:
            return Noised(np.where(numbers[: len(ids)] < self.rate, mask, ids))

        return noise


class DeleteBlueprint(NoiseBlueprint):
    """Some symbols, each by itself, are gone: where is to be found out (Lewis 2020)."""

    kind: Literal["delete"] = "delete"
    rate: float = Field(0.15, gt=0, lt=1)
    """how likely a symbol is to go; one always stays"""

    def build(self, codec: TextCodec) -> Noise:
        def noise(ids: Ids, numbers: Numbers) -> Noised:
            drawn = numbers[: len(ids)]
            kept = drawn >= self.rate
            kept[drawn.argmax()] = True
            return Noised(ids[kept])

        return noise


class InfillBlueprint(NoiseBlueprint):
    """Spans become one mask each, however long; of length 0, too (Lewis 2020).

    There are no more spans than symbols that they take away: the text never gets longer.
    """

    kind: Literal["infill"] = "infill"
    rate: float = Field(0.3, gt=0, lt=1)
    """the share of symbols that go"""
    mean: float = Field(3.0, gt=0)
    """the mean length of spans, of a Poisson distribution"""

    @property
    def marks(self) -> tuple[str, ...]:
        return (MASK,)

    def build(self, codec: TextCodec) -> Noise:
        (mask,) = codec.encode(MASK)
        terms = np.cumprod([np.exp(-self.mean), *(self.mean / np.arange(1, 10 * self.mean + 20))])
        below = terms.cumsum()  # the probability of a length up to each

        def noise(ids: Ids, numbers: Numbers) -> Noised:
            size = len(ids)
            gone = int(self.rate * size + numbers[0])
            if gone == 0:
                return Noised(ids)
            lengths = np.searchsorted(below, numbers[1 : gone + 1])
            count = min(gone, int(np.searchsorted(lengths.cumsum(), gone)) + 1)
            lengths = lengths[:count]
            lengths[-1] = gone - lengths[:-1].sum()
            gaps = _shares(size - gone + count + 1, count + 1, numbers[gone + 1 :]) - 1
            starts = np.cumsum(gaps[:-1]) + np.cumsum(lengths) - lengths
            kept = np.ones(size, bool)
            kept[_inside(starts, lengths)] = False
            return Noised(np.insert(ids[kept], np.cumsum(gaps[:-1]), mask))

        return noise


class PermuteBlueprint(NoiseBlueprint):
    """The sentences of a text in any order (Lewis 2020).

    A sentence ends with a symbol whose text ends with a full stop, or a mark like it.
    """

    kind: Literal["permute"] = "permute"

    def build(self, codec: TextCodec) -> Noise:
        texts = codec.texts()
        shown = (
            text.decode("latin-1") if isinstance(text, bytes) else text or "" for text in texts
        )
        ends = np.array([text.endswith(ENDINGS) for text in shown])

        def noise(ids: Ids, numbers: Numbers) -> Noised:
            cuts = np.flatnonzero(ends[ids[:-1]]) + 1
            sentences = np.split(ids, cuts)
            order = numbers[: len(sentences)].argsort(kind="stable")
            return Noised(np.concatenate([sentences[place] for place in order]))

        return noise


class RotateBlueprint(NoiseBlueprint):
    """The text begins anywhere, and what stood before that comes last (Lewis 2020)."""

    kind: Literal["rotate"] = "rotate"

    def build(self, codec: TextCodec) -> Noise:
        def noise(ids: Ids, numbers: Numbers) -> Noised:
            return Noised(np.roll(ids, -int(numbers[0] * len(ids))))

        return noise


class SpansBlueprint(NoiseBlueprint):
    """Spans become marks that tell them apart, and the target says what each stands for.

    Span corruption (Raffel 2020). Two spans never touch. That the target is over says its end, and
    not one mark more.
    """

    divides: ClassVar[bool] = True

    kind: Literal["spans"] = "spans"
    rate: float = Field(0.15, gt=0, lt=1)
    """the share of symbols that go, one at least"""
    mean: float = Field(3.0, ge=1)
    """the mean length of spans"""
    most: int = Field(100, ge=1)
    """the most spans of a text, and symbols <span:1>, <span:2>, ... that stand for them"""

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(f"<span:{number}>" for number in range(1, self.most + 1))

    def longest(self, lengths: Ids) -> tuple[Ids, Ids]:
        gone, spans = self._numbers(lengths)
        return lengths - gone + spans, gone + spans

    def _numbers(self, lengths: Ids) -> tuple[Ids, Ids]:
        """Return how many symbols go, and in how many spans."""
        left = np.maximum(lengths - 1, 1)
        gone = np.clip(np.rint(self.rate * lengths).astype(np.int64), 1, left)
        room = np.minimum(np.maximum(lengths - gone, 1), self.most)
        return gone, np.clip(np.rint(gone / self.mean).astype(np.int64), 1, room)

    def build(self, codec: TextCodec) -> Noise:
        marks = np.array([codec.encode(mark)[0] for mark in self.marks])

        def noise(ids: Ids, numbers: Numbers) -> Noised:
            gone, count = (int(found[0]) for found in self._numbers(np.array([len(ids)])))
            lengths = _shares(gone, count, numbers)
            gaps = _shares(len(ids) - gone + 2, count + 1, numbers[gone:])
            gaps[[0, -1]] -= 1  # a span may be first and last
            starts = np.cumsum(gaps[:-1]) + np.cumsum(lengths) - lengths
            inside = _inside(starts, lengths)
            left = np.insert(np.delete(ids, inside), np.cumsum(gaps[:-1]), marks[:count])
            said = np.insert(ids[inside], np.cumsum(lengths) - lengths, marks[:count])
            return Noised(left, said)

        return noise


class MassBlueprint(NoiseBlueprint):
    """One fragment is masked, symbol by symbol, and is the target (MASS, Song 2019)."""

    divides: ClassVar[bool] = True

    kind: Literal["mass"] = "mass"
    rate: float = Field(0.5, gt=0, lt=1)
    """the length of the fragment as a share of the text, one symbol at least"""

    @property
    def marks(self) -> tuple[str, ...]:
        return (MASK,)

    def longest(self, lengths: Ids) -> tuple[Ids, Ids]:
        return lengths, np.maximum(np.rint(self.rate * lengths).astype(np.int64), 1)

    def build(self, codec: TextCodec) -> Noise:
        (mask,) = codec.encode(MASK)

        def noise(ids: Ids, numbers: Numbers) -> Noised:
            size = max(1, int(np.rint(self.rate * len(ids))))
            start = int(numbers[0] * (len(ids) - size + 1))
            source = ids.copy()
            source[start : start + size] = mask
            return Noised(source, ids[start : start + size])

        return noise


def _shares(total: int, count: int, numbers: Numbers) -> Ids:
    """Divide ``total`` into ``count`` positive shares, every division as likely as any other."""
    cuts = np.sort(numbers[: total - 1].argsort(kind="stable")[: count - 1]) + 1
    shares: Ids = np.diff(cuts, prepend=0, append=total)
    return shares


def _inside(starts: Ids, lengths: Ids) -> Ids:
    """Return all places of the spans that start there."""
    before = np.cumsum(lengths) - lengths
    places: Ids = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return places
