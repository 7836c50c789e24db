"""Languages: sets of texts that are read character by character."""

from __future__ import annotations

from typing import Protocol, TypeVar

P = TypeVar("P")


class Language(Protocol[P]):
    """A set of texts; a place says all that matters of what was read.

    Places can be hashed. A place that is false is behind what begins no text of the language, and
    nothing is asked of it.
    """

    @property
    def first(self) -> P:
        """The place before anything is read."""

    def read(self, place: P, letter: str) -> P:
        """Return the place behind one character."""

    def goes_on(self, place: P, first: int, last: int) -> bool:
        """Return whether a character with a code point of this range fits."""

    def ends(self, place: P) -> bool:
        """Return whether what was read is a text of the language."""

    def left(self, place: P) -> float:
        """Return how many characters lead to a text of the language; infinity: it does not say."""


def holds(language: Language[P], text: str) -> bool:
    """Return whether a text belongs to a language."""
    place = language.first
    for letter in text:
        if not place:
            return False
        place = language.read(place, letter)
    return bool(place) and language.ends(place)
