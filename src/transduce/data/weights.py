"""What the losses of examples count, and those of their words: as it is read and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from transduce.data.alignment import TARGET, words_of
from transduce.data.batch import Example
from transduce.data.lines import Fault, Line
from transduce.data.ragged import Ragged, RaggedWriter
from transduce.text.codec import TextCodec

WEIGHTS: Final = "weights"  # the file of those of examples
LABELS: Final = "weights.labels"  # of those of labels; an empty row: all count 1
DTYPE: Final = "<f4"


def parse(text: str) -> tuple[float, ...]:
    """Return one number for an example, or one for each of its words.

    Raises:
        ValueError: it holds something else.
    """
    found = tuple(map(float, text.split()))
    if not found or not all(0 <= number < math.inf for number in found):
        raise ValueError("a weight is a number from 0 on")
    return found


def weight_fault(line: Line | None, targets: Sequence[str]) -> Fault | None:
    """Return what is wrong with the weights of an example."""
    if line is None or line.fault:
        return line and line.fault
    name, count, size = "wrong weight", 1, len(targets[0].split())
    try:
        count = len(parse(line.text))
    except ValueError:
        what = f"the weight {line.text[:30]!r} is no number from 0 on; write one, such as 0.5"
        return Fault(line.place, name, what)
    if count > 1 and len(targets) > 1:
        what = f"{count} weights are of the words of one target, and there are {len(targets)}"
        return Fault(line.place, name, f"{what}; write one for the example")
    if count not in (1, size, size + 1):
        what = f"there are {count} weights and {size} words in the target; write one for each word"
        return Fault(line.place, name, f"{what} (and maybe one for the end), or one for all")
    return None


def of_labels(
    example: Example, variants: Sequence[list[int]], codec: TextCodec
) -> list[list[float]] | Fault:
    """Return what every label of each variant of the target counts; nothing where all count 1.

    A symbol counts as the word that it belongs to, one of white space alone as what follows it.
    """
    if not example.word_weights:
        return [[] for _ in variants]
    found = words_of(example, TARGET, variants, codec)
    if isinstance(found, str):
        what = (
            f"{found}, so that weights of words mean nothing; look at text.{TARGET}, or write one"
        )
        return Fault(example.place, "words that symbols do not show", f"{what} for the example")
    count = len(example.references[0].split())
    given = (*example.word_weights, 1.0)[: count + 1]
    rows = []
    for words in found:
        row = [given[count]]
        for word in reversed(words):
            row.append(given[word - 1] if word else row[-1])
        rows.append(row[::-1])
    return rows


class WeightsWriter:
    """Writes the files of weights."""

    def __init__(self, path: Path, files: ExitStack) -> None:
        self._examples = files.enter_context((path / WEIGHTS).open("wb"))
        self._labels = files.enter_context(RaggedWriter(path, LABELS, DTYPE))

    def extend(self, weights: Sequence[float], labels: Sequence[Sequence[float]]) -> None:
        """Append examples, and all variants of their targets."""
        self._examples.write(np.array(weights, "<f8").tobytes())
        values = np.array([number for row in labels for number in row], DTYPE)
        self._labels.extend(values.tobytes(), list(map(len, labels)))


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a corpus, mapped into memory."""

    examples: NDArray[np.float64] = field(repr=False)
    labels: Ragged | None  # None: written before there were any

    @classmethod
    def open(cls, path: Path, examples: int, targets: int) -> StoredWeights | None:
        """Map the files of so many examples and variants of targets, if there are any.

        Raises:
            OSError, ValueError, Problem: they are damaged.
        """
        if not (path / WEIGHTS).exists():
            return None
        own = np.asarray(np.memmap(path / WEIGHTS, "<f8", "r", shape=(examples,)))
        there = (path / f"{LABELS}.ends").exists()
        return cls(own, Ragged.open(path, LABELS, DTYPE, targets) if there else None)

    def gather(
        self, examples: NDArray[np.int64], targets: NDArray[np.int64], labels: int
    ) -> Float[Tensor, "B #T"]:
        """Return what the labels count of these examples, whose targets stand at these places."""
        weights = torch.from_numpy(self.examples[examples]).float()[:, None]
        own = None if self.labels is None else self.labels.gather(targets)
        if own is None or not own.lengths.any():
            return weights
        known = own.lengths[:, None] > 0
        padded = F.pad(own.data, (0, labels - own.data.shape[1]))
        return torch.where(known, padded, weights)


def beside(parts: Sequence[Float[Tensor, "_ #T"]], labels: int) -> Float[Tensor, "B #T"]:
    """Return the weights of several batches, whose targets have up to so many labels together."""
    if all(part.shape[1] == 1 for part in parts):
        return torch.cat(list(parts))
    wide = (
        part.expand(-1, labels) if part.shape[1] == 1 else F.pad(part, (0, labels - part.shape[1]))
        for part in parts
    )
    return torch.cat(list(wide))
