"""Which word each piece of a text belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from transduce.text.vocabulary import BYTES

BLANK: Final = frozenset([" ", *(BYTES[ord(blank)] for blank in " \t\n\v\f\r")])


def spaced(pieces: Sequence[str]) -> list[int]:
    """Return the number of the word, from 1, of each piece of text that pieces of white space part.

    Those are 0.
    """
    numbers, word, within = [], 0, False
    for piece in pieces:
        begins = piece not in BLANK and not within
        word += begins
        within = piece not in BLANK
        numbers.append(word if within else 0)
    return numbers


def behind(parts: Iterable[Sequence[int]]) -> list[int]:
    """Number the words of parts of a text, each numbered from 1, one part after the other."""
    numbers: list[int] = []
    before = 0
    for part in parts:
        numbers += [number and number + before for number in part]
        before = max(before, *numbers[-len(part) :]) if part else before
    return numbers
