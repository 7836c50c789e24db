"""Sets of characters, as ranges of code points."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

Letters = tuple[tuple[int, int], ...]  # first and last code points, ascending and apart

EVERY: Final[Letters] = ((0, 0xD7FF), (0xE000, 0x10FFFF))  # surrogates are no characters


def union(ranges: Iterable[tuple[int, int]]) -> Letters:
    """Return the characters that are in any of the ranges."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return tuple(found)


def others(letters: Letters) -> Letters:
    """Return all other characters."""
    found = []
    for start, end in EVERY:
        for first, last in letters:
            if first <= end and last >= start:
                if first > start:
                    found.append((start, first - 1))
                start = last + 1
        if start <= end:
            found.append((start, end))
    return tuple(found)


def overlaps(letters: Letters, first: int, last: int) -> bool:
    """Return whether any of the characters is from ``first`` to ``last``."""
    place = bisect_right(letters, (last, 0x110000))
    return place > 0 and letters[place - 1][1] >= first


CLASSES: Final[dict[str, Callable[[str], bool]]] = {
    "d": str.isdecimal,
    "s": str.isspace,
    "w": lambda letter: letter.isalnum() or letter == "_",
}


@cache
def named(name: str) -> Letters:
    """Return the characters of a class: d (digits), s (spaces), w (of words); D, S, W: others."""
    if name.isupper():
        return others(named(name.lower()))
    belongs = CLASSES[name]
    points = (n for first, last in EVERY for n in range(first, last + 1))
    return union((n, n) for n in points if belongs(chr(n)))
