"""Outputs whose text belongs to a language, and in particular matches a regular expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import field_validator
from torch import Tensor

from transduce.problem import Problem
from transduce.search.constrain.constraint import (
    EOS,
    Constraint,
    ConstraintBlueprint,
    Target,
    Texts,
)
from transduce.search.constrain.expression import Nfa
from transduce.search.constrain.language import Language
from transduce.search.constrain.required import Limit
from transduce.search.constrain.spelling import spelling
from transduce.sequences import Sequences

P = TypeVar("P")

KEPT: Final = 2**24  # symbols in the rows that are kept, of 9 bytes each
DETOUR: Final = 8  # tokens until the shortest way is known again, as behind the bytes of a letter
ENDLESS: Final = 2**31
DEAD: Final = 0
BEFORE: Final = 1
FIRST: Final = 2
LEAST: Final = (0, 0, 0x80, 0x800, 0x10000)  # code points that UTF-8 writes in so many bytes
MOST: Final = (0, 0x7F, 0x7FF, 0xFFFF, 0x10FFFF)


class Place(NamedTuple):
    """How far a text has come."""

    inner: Any  # in the language
    begun: bytes = b""  # of a character
    fresh: bool = False  # nothing was said


class Reading(NamedTuple):
    """How far each row has come."""

    number: Int[Tensor, "N"]  # of a place
    left: Int[Tensor, "N"]  # tokens that may still be said; at first the beginning is among them


class Row(NamedTuple):
    """What may follow in one state."""

    allowed: Bool[Tensor, "V"]
    behind: Int[np.ndarray, "V"]  # the state behind every symbol
    needs: Int[Tensor, "V"]  # tokens that suffice for the rest behind each
    most: int  # of these


@dataclass
class Stem:
    """A node of the tree of the texts of all symbols."""

    children: dict[str, Stem] = field(default_factory=dict)
    symbols: list[int] = field(default_factory=list)  # whose text ends here


class Matching(Constraint[Reading], Generic[P]):
    """Allows a symbol if its text can go on towards a text of a language, and eos behind one.

    Which symbols these are is found out where a state is first met, and kept (Willard & Louf
    2023). Symbols without a text of their own are never allowed.

    With a ``limit``, the most tokens for sources of given lengths, a symbol also has to leave room
    for the shortest way to the end, where the language knows one and there is such a symbol.
    """

    def __init__(
        self,
        language: Language[P],
        texts: Texts,
        device: torch.device,
        limit: Limit | None = None,
    ) -> None:
        self.limit = limit
        self.language, self.texts, self.device = language, texts, device
        self.stem = _grow(texts.of_symbols)
        spelt = enumerate(texts.of_symbols)
        self.bytes = [(n, text) for n, text in spelt if isinstance(text, bytes)]
        first = Place(language.first, fresh=True)
        self.places: list[Place | None] = [None, None, first]
        self.numbers = {first: FIRST}
        self.rows: dict[int, Row] = {}

    def begin(self, sources: Mapping[str, Sequences]) -> Reading:
        """Return the state before anything is read, one row for every source."""
        lengths = next(iter(sources.values())).lengths
        left = self.limit(lengths) + 1 if self.limit else torch.full_like(lengths, ENDLESS)
        return Reading(torch.full_like(lengths, BEFORE), left)

    def read(self, tokens: Int[Tensor, "N"], state: Reading) -> Reading:
        """Read one token in every row."""
        pairs = zip(state.number.tolist(), tokens.tolist(), strict=True)
        behind = [self._behind(number, token) for number, token in pairs]
        return Reading(state.number.new_tensor(behind), state.left - 1)

    def weigh(self, log_probs: Float[Tensor, "N V"], state: Reading) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for what may not."""
        rows = zip(state.number.tolist(), state.left.tolist(), strict=True)
        allowed = torch.stack([self._allowed(number, left) for number, left in rows])
        allowed = F.pad(allowed, (0, log_probs.shape[1] - allowed.shape[1]))
        return log_probs.masked_fill(~allowed, -torch.inf)

    def _allowed(self, number: int, left: int) -> Bool[Tensor, "V"]:
        """Return which symbols may follow where so many tokens are left."""
        row = self._row(number)
        if left >= row.most + 2:  # behind a symbol comes the rest, and eos
            return row.allowed
        soon = row.allowed & (row.needs + 2 <= left)
        return soon if soon.any() else row.allowed

    def _behind(self, number: int, token: int) -> int:
        if number == BEFORE:
            return FIRST
        behind = self._row(number).behind
        return int(behind[token]) if token < len(behind) else DEAD

    def _row(self, number: int) -> Row:
        if number not in self.rows:
            if (len(self.rows) + 1) * len(self.texts.of_symbols) > KEPT:
                self.rows.clear()  # they are found again
            self.rows[number] = self._found(self.places[number])
        return self.rows[number]

    def _found(self, place: Place | None) -> Row:
        behind = np.full(len(self.texts.of_symbols), DEAD, dtype=np.int32)
        for symbol, after in self._followers(place).items() if place else ():
            behind[symbol] = self._number(after)
        allowed = torch.from_numpy(behind != DEAD)
        needs = torch.zeros(len(behind), dtype=torch.int32)
        if place and self.limit is not None:
            needs = torch.from_numpy(self._needs(place, behind))
        if place and not place.begun:
            allowed[EOS] = self.language.ends(place.inner)
            needs[EOS] = -1
        most = int(needs.max())
        return Row(allowed.to(self.device), behind, needs.to(self.device), most)

    def _needs(self, place: Place, behind: Int[np.ndarray, "V"]) -> Int[np.ndarray, "V"]:
        """Return how many tokens surely suffice for what has to come behind each symbol."""
        own = self._need(place)
        if own == inf:
            return np.zeros_like(behind)
        numbers, which = np.unique(behind, return_inverse=True)
        known = [0.0 if n == DEAD else self._need(self.places[n]) for n in numbers.tolist()]
        needs = [own + DETOUR if need == inf else need for need in known]
        return np.array(needs, dtype=np.int32)[which]

    def _need(self, place: Place | None) -> float:
        return inf if place is None or place.begun else self.language.left(place.inner)

    def _number(self, place: Place) -> int:
        if place not in self.numbers:
            self.numbers[place] = len(self.places)
            self.places.append(place)
        return self.numbers[place]

    def _followers(self, place: Place) -> dict[int, Place]:
        """Return where the symbols lead that may follow."""
        found: dict[int, Place] = {}
        if not place.begun:
            self._walk(self.stem, place.inner, place.fresh and self.texts.spaced, found)
        for symbol, text in self.bytes:
            if behind := self._spell(place, place.begun + text):
                found[symbol] = behind
        return found

    def _walk(self, stem: Stem, inner: P, spaced: bool, found: dict[int, Place]) -> None:
        """Note all symbols below a stem; where ``spaced``, a space that comes first is no text."""
        for letter, child in stem.children.items():
            behind = inner if spaced and letter == " " else self.language.read(inner, letter)
            if behind:
                found.update(dict.fromkeys(child.symbols, Place(behind)))
                self._walk(child, behind, False, found)

    def _spell(self, place: Place, begun: bytes) -> Place | None:
        """Return the place behind the bytes of one character, or of its beginning."""
        lead = begun[0]
        size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        if 0x80 <= lead < 0xC0 or lead >= 0xF8 or any(b >> 6 != 2 for b in begun[1:]):
            return None
        point = lead & (0x7F if size == 1 else 0xFF >> (size + 1))
        for byte in begun[1:]:
            point = point << 6 | byte & 0x3F
        open_bits = 6 * (size - len(begun))
        first, last = point << open_bits, (point + 1 << open_bits) - 1
        first, last = max(first, LEAST[size]), min(last, MOST[size])
        if first > last or not self.language.goes_on(place.inner, first, last):
            return None
        if open_bits:
            return Place(place.inner, begun)
        return Place(self.language.read(place.inner, chr(point)))


def _grow(texts: Sequence[str | bytes | None]) -> Stem:
    root = Stem()
    for symbol, text in enumerate(texts):
        if isinstance(text, str):
            stem = root
            for letter in text:
                stem = stem.children.setdefault(letter, Stem())
            stem.symbols.append(symbol)
    return root


class MatchBlueprint(ConstraintBlueprint):
    r"""The text of the whole output matches a regular expression.

    Known are . [a-z] [^a-z] \d \s \w \D \S \W ( ) (?: ) | * + ? {2} {2,} {2,5}, and \ before any
    sign. What is new in a source, and so has no symbol in the vocabulary, is not copied.
    """

    kind: Literal["match"] = "match"
    expression: str
    """what to match, from beginning to end"""

    @field_validator("expression")
    @classmethod
    def _is_one(cls, expression: str) -> str:
        Nfa(expression)
        return expression

    def build(self, target: Target) -> Matching[frozenset[int]]:
        """Make the constraint."""
        texts = target.texts()
        expression = Nfa(self.expression, spelling(texts))
        if not expression.first:
            raise Problem(
                f"each text that {self.expression!r} matches has characters that the model has no "
                "symbol for, so it can never write one; spell it otherwise",
                "constraints",
            )
        return Matching(expression, texts, target.device, target.limit)
