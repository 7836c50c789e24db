"""Finite automata over symbols, many rows at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce.search.constrain.constraint import EOS, Constraint
from transduce.sequences import Sequences

Phrases = Sequence[Sequence[int]]

BEFORE: Final = 0  # the state in which nothing has been read
ROOT: Final = 1  # the state behind the beginning


class Table(NamedTuple):
    """Where each of S states goes with each of C symbols.

    Column 0 stands for all symbols that have no column; they are many, and all alike.
    """

    follow: Int[Tensor, "S C"]
    symbols: Int[Tensor, "_"]  # of columns 1, 2, ..., ascending; eos is always among them

    def columns(self, tokens: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Return the columns of symbols."""
        place = torch.searchsorted(self.symbols, tokens.contiguous()).clamp(
            max=len(self.symbols) - 1
        )
        return torch.where(self.symbols[place] == tokens, place + 1, 0)

    def read(self, tokens: Int[Tensor, "N"], state: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
        """Return the next state of every row."""
        return self.follow[state, self.columns(tokens)]

    def without(
        self, log_probs: Float[Tensor, "N V"], bad: Bool[Tensor, "N C"]
    ) -> Float[Tensor, "N V"]:
        """Return -inf in place of the log-probabilities of all symbols of bad columns."""
        known = self.symbols < log_probs.shape[1]
        symbols, rest = self.symbols[known], log_probs.masked_fill(bad[:, :1], -torch.inf)
        here = log_probs.index_select(1, symbols).masked_fill(bad[:, 1:][:, known], -torch.inf)
        return rest.index_copy_(1, symbols, here)


class Automaton(Constraint[Tensor]):
    """Allows what leads to no dead state."""

    def __init__(self, table: Table, dead: Bool[Tensor, "S"]) -> None:
        self.table, self.dead = table, dead

    def begin(self, sources: Mapping[str, Sequences]) -> Int[Tensor, "B"]:
        """Return the state before anything is read, one row for every source."""
        first = next(iter(sources.values()))
        return torch.full_like(first.lengths, BEFORE)

    def read(self, tokens: Int[Tensor, "N"], state: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
        """Read one token in every row."""
        return self.table.read(tokens, state)

    def weigh(
        self, log_probs: Float[Tensor, "N V"], state: Int[Tensor, "N"]
    ) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for what may not."""
        return self.table.without(log_probs, self.dead[self.table.follow[state]])


class Tree(NamedTuple):
    """The prefixes of some phrases: state 0 has read nothing, state 1 is the empty prefix."""

    children: list[dict[int, int]]
    ends: set[int]


def grow(phrases: Phrases) -> Tree:
    """Return the tree of the prefixes of phrases; children have higher numbers than parents."""
    children: list[dict[int, int]] = [{}, {}]
    ends = set[int]()
    for phrase in phrases:
        state = ROOT
        for symbol in phrase:
            if symbol not in children[state]:
                children[state][symbol] = len(children)
                children.append({})
            state = children[state][symbol]
        ends.add(state)
    return Tree(children, ends)


def lay(
    children: Sequence[Mapping[int, int]],
    otherwise: Sequence[int],
    order: Iterable[int],
    device: torch.device,
) -> Table:
    """Make a table: a state goes where its children say, or else as ``otherwise`` of it does.

    ``order`` has ``otherwise[state]`` before the state; one that is its own ``otherwise`` stays.
    """
    symbols = sorted({EOS}.union(*children))
    column = {symbol: number for number, symbol in enumerate(symbols, 1)}
    follow = torch.zeros(len(children), 1 + len(symbols), dtype=torch.long)
    for state in order:
        other = otherwise[state]
        follow[state] = follow[other] if other != state else state
        for symbol, child in children[state].items():
            follow[state, column[symbol]] = child
    follow[BEFORE] = ROOT
    return Table(follow.to(device), torch.tensor(symbols, device=device))


def finder(phrases: Phrases, device: torch.device) -> tuple[Table, Tree, list[int]]:
    """Return the automaton that finds phrases in a stream (Aho and Corasick 1975).

    With it its tree, and of every state the one for the longest proper suffix. A state is the
    longest suffix of what was read that begins a phrase.
    """
    found = grow(phrases)
    suffix, order = [ROOT] * len(found.children), [ROOT]
    waiting = deque([ROOT])
    while waiting:
        state = waiting.popleft()
        for symbol, child in found.children[state].items():
            shorter = suffix[state] if state != ROOT else BEFORE
            while shorter > ROOT and symbol not in found.children[shorter]:
                shorter = suffix[shorter]
            suffix[child] = found.children[shorter].get(symbol, ROOT) if shorter else ROOT
            order.append(child)
            waiting.append(child)
    return lay(found.children, suffix, order, device), found, suffix


def suffixes(state: int, suffix: Sequence[int]) -> Iterable[int]:
    """Yield a state and those of all its suffixes, the empty one left out."""
    while state > ROOT:
        yield state
        state = suffix[state]


def only(phrases: Phrases, device: torch.device) -> Automaton:
    """Allow these strings alone, with eos behind them."""
    found = grow([[*phrase, EOS] for phrase in phrases])
    dead = len(found.children)
    children = [*found.children, {}]
    table = lay(children, [dead] * len(children), [dead, *range(ROOT, dead)], device)
    return Automaton(table, torch.arange(len(children), device=device) == dead)
