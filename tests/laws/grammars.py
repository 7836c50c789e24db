"""Random context-free grammars, and the plainest way to see what belongs to one."""

from __future__ import annotations

import random
from collections.abc import Sequence

from transduce.search.constrain.context_free import Rules, Symbol
from transduce.search.constrain.letters import overlaps


def random_rules(chance: random.Random, letters: str) -> Rules:
    """Return a few rules, recursive, ambiguous, empty or impossible as chance has it."""
    count = chance.randint(1, 4)

    def symbol() -> Symbol:
        if chance.random() < 0.4:
            return chance.randrange(count)
        letter = ord(chance.choice(letters))
        return ((letter, letter),)

    return [
        [[symbol() for _ in range(chance.randint(0, 3))] for _ in range(chance.randint(1, 3))]
        for _ in range(count)
    ]


def derives(rules: Rules, start: int, text: str) -> bool:
    """Return whether a text can be derived: spans of every rule, until there are no more."""
    size = len(text)
    spans = [set[tuple[int, int]]() for _ in rules]

    def ends(way: Sequence[Symbol], begin: int) -> set[int]:
        here = {begin}
        for symbol in way:
            if isinstance(symbol, int):
                here = {last for first, last in spans[symbol] if first in here}
            else:
                fits = (at for at in here if at < size)
                here = {at + 1 for at in fits if overlaps(symbol, ord(text[at]), ord(text[at]))}
        return here

    total = -1
    while total != (total := sum(map(len, spans))):
        for found, ways in zip(spans, rules, strict=True):
            found.update(
                (at, end) for way in ways for at in range(size + 1) for end in ends(way, at)
            )
    return (0, size) in spans[start]
