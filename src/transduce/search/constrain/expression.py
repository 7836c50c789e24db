"""Regular expressions, read into automata over characters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final, NoReturn

from transduce.search.constrain.letters import Letters, named, others, overlaps, union
from transduce.search.constrain.spelling import ANYTHING, Able, Spelling

MOST: Final = 1000  # times that a part may be repeated
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}

Piece = Callable[["Nfa", int], int]  # adds a part behind a state and returns the state behind it


class Nfa:
    """A non-deterministic automaton (Thompson 1968); state 0 is where it starts.

    ``able`` says which characters can be written. States from which those do not lead to the end
    are left out, so that nothing is a dead end, and ways to the end are counted in characters that
    stand alone.
    """

    def __init__(self, expression: str, able: Spelling = ANYTHING) -> None:
        self.steps: list[list[tuple[Letters, int]]] = []
        self.free: list[list[int]] = []
        self.end = _Reader(expression).read()(self, self.new())
        self.dead = {n for n, way in enumerate(self._ways(able.possible)) if way == inf}
        self.ways = self._ways(able.alone)

    @property
    def first(self) -> frozenset[int]:
        """The states before anything is read."""
        return self.reach({0})

    def new(self) -> int:
        """Return a new state."""
        self.steps.append([])
        self.free.append([])
        return len(self.steps) - 1

    def reach(self, states: set[int]) -> frozenset[int]:
        """Return these states and all that are reached from them without reading."""
        found, waiting = set(states), list(states)
        while waiting:
            for state in self.free[waiting.pop()]:
                if state not in found:
                    found.add(state)
                    waiting.append(state)
        return frozenset(found - self.dead)

    def _ways(self, able: Able) -> list[float]:
        """Return how many characters lead from each state to the end, of sets that are able."""
        before: list[list[tuple[int, int]]] = [[] for _ in self.steps]
        for state, steps in enumerate(self.steps):
            for to in self.free[state]:
                before[to].append((state, 0))
            for letters, to in steps:
                if able(letters):
                    before[to].append((state, 1))
        ways, waiting = [inf] * len(before), deque([self.end])
        ways[self.end] = 0
        while waiting:  # the nearest first
            to = waiting.popleft()
            for state, size in before[to]:
                if ways[to] + size < ways[state]:
                    ways[state] = ways[to] + size
                    (waiting.append if size else waiting.appendleft)(state)
        return ways

    def read(self, states: frozenset[int], letter: str) -> frozenset[int]:
        """Return the states behind one character; none where it does not fit."""
        point = ord(letter)
        steps = (step for state in states for step in self.steps[state])
        return self.reach({to for letters, to in steps if overlaps(letters, point, point)})

    def goes_on(self, states: frozenset[int], first: int, last: int) -> bool:
        """Return whether a character of this range fits."""
        steps = (step for state in states for step in self.steps[state])
        return any(overlaps(letters, first, last) for letters, _ in steps)

    def ends(self, states: frozenset[int]) -> bool:
        """Return whether what was read matches."""
        return self.end in states

    def left(self, states: frozenset[int]) -> float:
        """Return how many single characters a match needs at least from here on."""
        return min((self.ways[state] for state in states), default=inf)


class _Reader:
    """Reads an expression from left to right.

    Raises:
        ValueError: it is none, or of a kind that no finite automaton reads.
    """

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def read(self) -> Piece:
        piece = self._choice()
        return piece if self.at == len(self.text) else self._fail("this ) closes nothing")

    def _fail(self, what: str) -> NoReturn:
        raise ValueError(f"{what}, at character {self.at + 1} of {self.text!r}")

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self) -> str:
        if self.at == len(self.text):
            self._fail("it ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _choice(self) -> Piece:
        choices = [self._sequence()]
        while self._peek() == "|":
            self._take()
            choices.append(self._sequence())
        return choices[0] if len(choices) == 1 else _either(choices)

    def _sequence(self) -> Piece:
        pieces = []
        while self._peek() not in ("", "|", ")"):
            pieces.append(self._repeated())
        return _row(pieces)

    def _repeated(self) -> Piece:
        piece = self._atom()
        counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self._peek() in ("*", "+", "?", "{"):
            sign = self._take()
            piece = _times(piece, *(self._counts() if sign == "{" else counts[sign]))
            if self._peek() in ("*", "+", "?", "{"):
                self._fail("only one of * + ? {} may stand behind a part")
        return piece

    def _counts(self) -> tuple[int, int | None]:
        inside, closed, _ = self.text[self.at :].partition("}")
        low, comma, high = inside.partition(",")
        if not closed or not low.isdecimal() or not (high.isdecimal() or high == ""):
            self._fail(r"write {2}, {2,} or {2,5}, or \{ for the character")
        self.at += len(inside) + 1
        least = int(low)
        most = int(high) if high else None if comma else least
        if max(least, most or 0) > MOST or (most is not None and most < least):
            self._fail(f"counts go up, and to {MOST} at most")
        return least, most

    def _atom(self) -> Piece:
        sign = self._take()
        if sign == "(":
            if self._peek() == "?" and self.text[self.at : self.at + 2] != "?:":
                self._fail("of groups only (...) and (?:...) are known")
            self.at += 2 if self._peek() == "?" else 0
            piece = self._choice()
            if self._peek() != ")":
                self._fail("a ( is not closed")
            self._take()
            return piece
        if sign == "[":
            return _one(self._letters())
        if sign == ".":
            return _one(others(((10, 10),)))
        if sign == "\\":
            return _one(self._escape())
        if sign in "*+?{^$":
            self.at -= 1
            self._fail(f"a bare {sign} has no place here; the whole text is matched anyway")
        return _one(((ord(sign), ord(sign)),))

    def _escape(self) -> Letters:
        sign = self._take()
        if sign in "dswDSW":
            return named(sign)
        if sign.isalnum() and sign not in ESCAPES:
            self._fail(rf"\{sign} is not known")
        point = ord(ESCAPES.get(sign, sign))
        return ((point, point),)

    def _letters(self) -> Letters:
        negated = self._peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        begins = self.at
        while (sign := self._take()) != "]" or self.at == begins + 1:
            first = self._escape() if sign == "\\" else ((ord(sign), ord(sign)),)
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self._take()
                sign = self._take()
                last = self._escape() if sign == "\\" else ((ord(sign), ord(sign)),)
                if len(first) > 1 or len(last) > 1 or last[0][0] < first[0][0]:
                    self._fail("a range goes from one character up to another")
                first = ((first[0][0], last[0][0]),)
            ranges.extend(first)
        return others(union(ranges)) if negated else union(ranges)


def _one(letters: Letters) -> Piece:
    def add(nfa: Nfa, state: int) -> int:
        end = nfa.new()
        nfa.steps[state].append((letters, end))
        return end

    return add


def _row(pieces: list[Piece]) -> Piece:
    def add(nfa: Nfa, state: int) -> int:
        for piece in pieces:
            state = piece(nfa, state)
        return state

    return add


def _either(pieces: list[Piece]) -> Piece:
    def add(nfa: Nfa, state: int) -> int:
        end = nfa.new()
        for piece in pieces:
            start = nfa.new()
            nfa.free[state].append(start)
            nfa.free[piece(nfa, start)].append(end)
        return end

    return add


def _times(piece: Piece, least: int, most: int | None) -> Piece:
    def add(nfa: Nfa, state: int) -> int:
        for _ in range(least):
            state = piece(nfa, state)
        if most is None:
            loop = nfa.new()
            nfa.free[state].append(loop)
            nfa.free[piece(nfa, loop)].append(loop)
            return loop
        ends = [state]
        for _ in range(most - least):
            ends.append(piece(nfa, ends[-1]))
        end = nfa.new()
        for some in ends:
            nfa.free[some].append(end)
        return end

    return add
