"""Which words of source and target belong together, as it is read, kept and brought to symbols."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.data.batch import Example
from transduce.data.lines import Fault, Line
from transduce.data.ragged import Ragged, RaggedWriter
from transduce.sequences import Sequences
from transduce.text.codec import TextCodec

SOURCE, TARGET = "source", "target"
PAIRS: Final = "alignment"  # the file of pairs; beside it are the words of each side's symbols
FILES: Final = (PAIRS, f"{SOURCE}.words", f"{TARGET}.words")
DTYPE: Final = "<u2"
MOST: Final = 2**16 - 1  # words that there are numbers for

_PAIR = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")

Pairs = tuple[tuple[int, int], ...]
Links = dict[str, list[list[int]]]  # of one example the rows of each file


def parse(text: str) -> Pairs:
    """Return the places of words of an alignment such as ``0-0 2-1``, source before target.

    Raises:
        ValueError: it is written otherwise.
    """
    found = []
    for pair in text.split():
        match = _PAIR.fullmatch(pair)
        if match is None:
            raise ValueError(
                f"{pair[:30]!r} in the alignment is no pair of places; write them, source before "
                "target, like 0-0 2-1"
            )
        found.append((int(match[1]), int(match[2])))
    return tuple(found)


def alignment_fault(line: Line, source: str, targets: Sequence[str]) -> Fault | None:
    """Return what is wrong with the alignment of a source and its only target."""
    if line.fault:
        return line.fault
    try:
        if len(targets) > 1:
            raise ValueError(
                f"an alignment is of one target, and there are {len(targets)}; keep one, or read "
                "them without alignment"
            )
        sizes = {SOURCE: len(source.split()), TARGET: len(targets[0].split())}
        for pair in parse(line.text):
            for place, (side, size) in zip(pair, sizes.items(), strict=True):
                if place >= size:
                    raise ValueError(
                        f"{pair[0]}-{pair[1]} in the alignment is outside the {side}, which has "
                        f"{size} words, counted from 0; mend it, or leave the alignment blank"
                    )
    except ValueError as error:
        return Fault(line.place, "wrong alignment", str(error))
    return None


def link(
    example: Example, variants: Mapping[str, list[list[int]]], codecs: Mapping[str, TextCodec]
) -> Links | Fault:
    """Find the words of an example in its symbols; without an alignment nothing is looked for.

    Numbers are from 1: for PAIRS source, target, source, target and so on in one row; for each side
    the word of every symbol, a row for each variant.
    """
    words: dict[str, list[list[int]]] = {}
    for side in (SOURCE, TARGET):
        words[side] = [[] for _ in variants[side]]
        if example.alignment:
            found = words_of(example, side, variants[side], codecs[side])
            if isinstance(found, str):
                what = f"{found}, so that its alignment means nothing; look at text.{side}, or "
                what += "leave the alignment blank"
                return Fault(example.place, "words that symbols do not show", what)
            words[side] = found
    pairs = [place + 1 for pair in example.alignment for place in pair]
    return dict(zip(FILES, ([pairs], words[SOURCE], words[TARGET]), strict=True))


def words_of(
    example: Example, side: str, variants: Sequence[list[int]], codec: TextCodec
) -> list[list[int]] | str:
    """Return the word of every symbol, from 1, for each variant; a text if they are not those read.

    0 stands for a symbol of white space alone.
    """
    text = example.references[0] if side == TARGET else example.sources[side]
    found = [codec.words(ids) for ids in variants]
    count, shown = len(text.split()), {max(words, default=0) for words in found}
    if shown != {count} or count > MOST:
        return f"the {side} has {count} words and its symbols show {max(shown)}"
    return found


class LinksWriter:
    """Writes the files of alignments."""

    def __init__(self, path: Path, files: ExitStack) -> None:
        self._files = {name: files.enter_context(RaggedWriter(path, name, DTYPE)) for name in FILES}

    def extend(self, rows: Sequence[Links]) -> None:
        """Append examples."""
        for links in rows:
            for name, own in links.items():
                values = np.array([number for row in own for number in row], DTYPE)
                self._files[name].extend(values.tobytes(), list(map(len, own)))


@dataclass(frozen=True)
class Alignments:
    """The alignments of a corpus, mapped into memory."""

    pairs: Ragged
    source: Ragged
    target: Ragged

    @classmethod
    def open(cls, path: Path, rows: int, variants: Mapping[str, int]) -> Alignments | None:
        """Map the files, if there are any.

        Raises:
            Problem: they are damaged.
        """
        if not (path / f"{PAIRS}.ends").exists():
            return None
        counts = (rows, rows * variants[SOURCE], rows * variants[TARGET])
        opened = zip(FILES, counts, strict=True)
        return cls(*(Ragged.open(path, name, DTYPE, count) for name, count in opened))

    def gather(
        self, rows: NDArray[np.int64], source: NDArray[np.int64], target: NDArray[np.int64]
    ) -> Sequences:
        """Return the aligned places of rows whose texts stand at these places.

        A row of the result is pairs (place of a label, place of a source symbol), in order.
        """
        pairs = self.pairs.gather(rows).data
        pairs = pairs.view(len(rows), pairs.shape[1] // 2, 2)
        read, said = self.source.gather(source).data, self.target.gather(target).data
        batch = torch.arange(len(rows))[:, None]
        most = [int(side.max()) + 1 if side.numel() else 1 for side in (said, read)]
        together = torch.zeros(len(rows), *most, dtype=torch.bool)
        together[batch, pairs[..., 1], pairs[..., 0]] = True
        together[:, 0] = False  # padding, and symbols of no word
        aligned = together[batch[:, :, None], said[:, :, None], read[:, None]].nonzero()
        lengths = torch.bincount(aligned[:, 0], minlength=len(rows))
        return Sequences.stack(torch.split(aligned[:, 1:], lengths.tolist()))
