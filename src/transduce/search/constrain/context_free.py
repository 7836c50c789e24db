"""Context-free grammars of any kind, and texts that are read along with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from transduce.search.constrain.letters import Letters, overlaps

Symbol = int | Letters  # the number of a rule, or one character of a set
Rules = Sequence[Sequence[Sequence[Symbol]]]  # of every rule its alternatives

Address = tuple[int, int]  # of those that wait in a column for a rule
Back = frozenset[Address]  # where to go on behind the end of an alternative

DEAD: Final = 0  # the column behind what begins no sentence
TOP: Final = (DEAD, -1)  # behind the whole sentence


class Column(NamedTuple):
    """What may follow at one place of a text; equal columns are one.

    A spot is a place within an alternative of a rule.
    """

    steps: list[tuple[Letters, int, Back]]  # a character, and the spot behind it
    waiting: dict[int, list[tuple[int, Back]]]  # by rule: the spots behind it
    ends: bool  # a sentence may end here
    behind: dict[str, int]  # columns behind characters, as far as they were asked for


class Grammar:
    """The sentences of a context-free grammar, read from left to right (Earley 1970).

    Rules may be ambiguous, recursive on any side, and empty. What stands at the very end of an
    alternative goes back to where the alternative does, not there (Leo 1991, and here for every
    such end): so lists and regular parts, however long, come back to the same few columns.

    ``possible`` says which sets hold a character that can be written at all; alternatives for which
    others are needed are left out, so that no column is a dead end. ``alone`` says which hold one
    that can be written for itself; ways to the end are counted in these.
    """

    def __init__(
        self,
        rules: Rules,
        start: int,
        possible: Callable[[Letters], bool] = bool,
        alone: Callable[[Letters], bool] = bool,
    ) -> None:
        kept = _productive(rules, possible)
        self.alone = alone
        self.sizes = _shortest(kept, alone)
        self.lasting: list[float] = []  # by spot: the fewest characters of the rest
        self.ways = {TOP: 0.0}  # by address: the fewest characters from there to the end
        self.empty = start not in kept  # no sentence can be written
        self.blank = _blank(kept)
        self.symbols: list[Symbol | None] = []  # by spot; None is the end of an alternative
        self.openings: dict[int, list[int]] = {
            rule: [spot for way in ways for spot in self._lay(way)] for rule, ways in kept.items()
        }
        nothing = Column([], {}, False, {})
        self.columns, self.numbers = [nothing], {(False, frozenset[tuple[int, Back]]()): DEAD}
        begins = ((spot, TOP) for spot in self.openings.get(start, []))
        self.first = self._column(begins, start in self.blank)

    def read(self, place: int, letter: str) -> int:
        """Return the column behind one character."""
        column = self.columns[place]
        if letter not in column.behind:
            point = ord(letter)
            steps = (step for step in column.steps if overlaps(step[0], point, point))
            spots = ((spot, address) for _, spot, back in steps for address in back)
            column.behind[letter] = self._column(spots, False)
        return column.behind[letter]

    def goes_on(self, place: int, first: int, last: int) -> bool:
        """Return whether a character of this range fits."""
        return any(overlaps(letters, first, last) for letters, _, _ in self.columns[place].steps)

    def ends(self, place: int) -> bool:
        """Return whether what was read is a sentence."""
        return self.columns[place].ends

    def left(self, place: int) -> float:
        """Return how many single characters a sentence needs at least from here on."""
        column = self.columns[place]
        if column.ends:
            return 0.0
        return min((self._count(*step) for step in column.steps), default=inf)

    def _count(self, letters: Letters, spot: int, back: Back) -> float:
        if not self.alone(letters):
            return inf
        return 1 + self.lasting[spot] + min(self.ways[address] for address in back)

    def _lay(self, way: Sequence[Symbol]) -> Iterator[int]:
        """Give an alternative its spots; yield those before which nothing has to be read."""
        fresh = True
        for symbol in way:
            if fresh:
                yield len(self.symbols)
            fresh &= symbol in self.blank
            self.symbols.append(symbol)
        self.symbols.append(None)
        sizes = [_size(symbol, self.sizes, self.alone) for symbol in way]
        self.lasting += [sum(sizes[at:]) for at in range(len(way) + 1)]

    def _column(self, spots: Iterable[tuple[int, Address]], ends: bool) -> int:
        """Return the column of these spots, once all that is complete has gone back."""
        found: dict[int, set[Address]] = {}
        waiting = list(spots)
        seen = set(waiting)
        while waiting:
            spot, address = waiting.pop()
            symbol, further = self.symbols[spot], list[tuple[int, Address]]()
            if symbol is not None:
                found.setdefault(spot, set()).add(address)
                if symbol in self.blank:
                    further = [(spot + 1, address)]
            elif address == TOP:
                ends = True
            else:
                column, rule = address
                further = [(s, a) for s, back in self.columns[column].waiting[rule] for a in back]
            waiting.extend(one for one in further if one not in seen)
            seen.update(further)
        core = {spot: frozenset(back) for spot, back in found.items()}
        key = ends, frozenset(core.items())
        if key not in self.numbers:
            self.numbers[key] = len(self.columns)
            self.columns.append(self._opened(len(self.columns), core, ends))
        return self.numbers[key]

    def _opened(self, number: int, core: Mapping[int, Back], ends: bool) -> Column:
        """Return a column, with all rules that may begin in it."""
        inner = {rule: self.openings[rule] for rule in self._begun(core)}
        back = {rule: set[Address]() for rule in inner}
        ending = {rule: set[int]() for rule in inner}  # rules that end where this one does
        for owner, spot in _owned(core, inner):
            symbol = self.symbols[spot]
            if isinstance(symbol, int):
                if self.symbols[spot + 1] is not None:
                    back[symbol].add((number, symbol))
                elif owner is None:
                    back[symbol] |= core[spot]
                else:
                    ending[symbol].add(owner)
        _spread(back, ending)
        whole: dict[int, set[Address]] = {}
        for owner, spot in _owned(core, inner):
            whole.setdefault(spot, set()).update(core[spot] if owner is None else back[owner])
        column = Column([], {}, ends, {})
        for spot, addresses in whole.items():
            symbol, behind = self.symbols[spot], frozenset(addresses)
            if not isinstance(symbol, int):
                assert symbol is not None
                column.steps.append((symbol, spot + 1, behind))
            elif self.symbols[spot + 1] is not None:
                column.waiting.setdefault(symbol, []).append((spot + 1, behind))
        self._measure(number, column.waiting)
        return column

    def _measure(self, number: int, waiting: Mapping[int, list[tuple[int, Back]]]) -> None:
        """Find the shortest ways from the addresses of a new column."""
        self.ways |= {(number, rule): inf for rule in waiting}
        changed = True
        while changed:  # they may lead through one another
            changed = False
            for rule, ends in waiting.items():
                way = min(
                    self.lasting[spot] + min(self.ways[address] for address in back)
                    for spot, back in ends
                )
                changed |= way < self.ways[number, rule]
                self.ways[number, rule] = min(way, self.ways[number, rule])

    def _begun(self, core: Iterable[int]) -> list[int]:
        """Return the rules that may begin at some spots."""
        found = dict[int, None]()
        waiting = list(core)
        while waiting:
            symbol = self.symbols[waiting.pop()]
            if isinstance(symbol, int) and symbol not in found:
                found[symbol] = None
                waiting.extend(self.openings[symbol])
        return list(found)


def _owned(
    core: Iterable[int], inner: Mapping[int, Iterable[int]]
) -> Iterator[tuple[int | None, int]]:
    """Yield all spots of a column, each with the rule that begins with it there, if one does."""
    yield from ((None, spot) for spot in core)
    yield from ((rule, spot) for rule, spots in inner.items() for spot in spots)


def _spread(back: Mapping[int, set[Address]], ending: Mapping[int, set[int]]) -> None:
    """Let rules go back to wherever those go back that end where they do."""
    grown = True
    while grown:
        grown = False
        for rule, others in ending.items():
            size = len(back[rule])
            back[rule].update(*(back[other] for other in others))
            grown |= len(back[rule]) > size


def _productive(
    rules: Rules, possible: Callable[[Letters], bool]
) -> dict[int, list[Sequence[Symbol]]]:
    """Return the rules that lead to a text, and of these the alternatives that do."""
    ways = [
        (rule, way)
        for rule, alternatives in enumerate(rules)
        for way in alternatives
        if all(isinstance(symbol, int) or possible(symbol) for symbol in way)
    ]
    known = set[int]()
    size = -1
    while size != len(known):
        size = len(known)
        for rule, way in reversed(ways):  # what a rule is made of mostly follows it
            if known.issuperset(_asked(way)):
                known.add(rule)
    kept: dict[int, list[Sequence[Symbol]]] = {rule: [] for rule in known}
    for rule, way in ways:
        if known.issuperset(_asked(way)):
            kept[rule].append(way)
    return kept


def _asked(way: Iterable[Symbol]) -> list[int]:
    return [symbol for symbol in way if isinstance(symbol, int)]


def _shortest(
    rules: dict[int, list[Sequence[Symbol]]], alone: Callable[[Letters], bool]
) -> dict[int, float]:
    """Return the fewest characters that each rule needs, all of which stand alone."""
    sizes = dict.fromkeys(rules, inf)
    changed = True
    while changed:
        changed = False
        for rule, ways in reversed(rules.items()):
            size = min(sum(_size(symbol, sizes, alone) for symbol in way) for way in ways)
            changed |= size < sizes[rule]
            sizes[rule] = size
    return sizes


def _size(symbol: Symbol, sizes: Mapping[int, float], alone: Callable[[Letters], bool]) -> float:
    if isinstance(symbol, int):
        return sizes[symbol]
    return 1.0 if alone(symbol) else inf


def _blank(rules: Mapping[int, Sequence[Sequence[Symbol]]]) -> set[int]:
    """Return the rules that an empty text fulfils."""
    blank = set[int]()
    size = -1
    while size != len(blank):
        size = len(blank)
        blank.update(
            rule for rule, ways in rules.items() if any(blank.issuperset(way) for way in ways)
        )
    return blank
