"""Which characters the symbols of a vocabulary can write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Final, NamedTuple

from transduce.search.constrain.constraint import Texts
from transduce.search.constrain.letters import EVERY, Letters, overlaps, union

Able = Callable[[Letters], bool]


class Spelling(NamedTuple):
    """What a language has to know of a vocabulary to lead to nothing that cannot be written."""

    possible: Able = bool  # whether any character of a set can be written at all
    alone: Able = bool  # whether one can that is the whole text of a symbol


ANYTHING: Final = Spelling()


def spelling(texts: Texts) -> Spelling:
    """Return what symbols with these texts can write."""
    return Spelling(_among(_spelt(texts)), _among(_single(texts)))


def _spelt(texts: Texts) -> Letters:
    """Return the characters that are in the texts of any symbols; with bytes all can be spelt."""
    if any(isinstance(text, bytes) for text in texts.of_symbols):
        return EVERY
    return _letters(_strings(texts))


def _single(texts: Texts) -> Letters:
    """Return the characters that are the whole text of a symbol."""
    ascii = (x.decode() for x in texts.of_symbols if isinstance(x, bytes) and x.isascii())
    return _letters(text for text in chain(_strings(texts), ascii) if len(text) == 1)


def _strings(texts: Texts) -> Iterator[str]:
    return (text for text in texts.of_symbols if isinstance(text, str))


def _letters(texts: Iterable[str]) -> Letters:
    return union((ord(letter), ord(letter)) for text in texts for letter in text)


def _among(letters: Letters) -> Able:
    """Return what says of a set whether any of it is among some characters."""

    @cache
    def among(one: Letters) -> bool:
        return any(overlaps(one, *span) for span in letters)

    return among
