"""Words and phrases that have to be in the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor

from transduce import tree
from transduce.search.constrain.automaton import BEFORE, ROOT, Phrases, Tree, finder, suffixes
from transduce.search.constrain.constraint import (
    EOS,
    Constraint,
    ConstraintBlueprint,
    Progress,
    Target,
)
from transduce.search.constrain.phrases import written
from transduce.sequences import Sequences

Limit = Callable[[Int[Tensor, "B"]], Int[Tensor, "B"]]

OWN: Final = "own"  # the source that says which of the texts each source is


class Found(NamedTuple):
    """How far each row has come."""

    text: Int[Tensor, "N"]  # whose phrases they are
    state: Int[Tensor, "N"]  # of the automaton that finds phrases
    met: Bool[Tensor, "N R"]  # which of the R requirements
    left: Int[Tensor, "N"]  # tokens that may still be said; at first the beginning is among them
    due: Bool[Tensor, "N"]  # a phrase has to be said now, and nothing else


def _progress(
    groups: Sequence[Phrases], found: Tree, suffix: Sequence[int]
) -> tuple[Bool[Tensor, "S R"], Int[Tensor, "S R"]]:
    """Return which groups each state meets, and how many symbols each is away from every group."""
    met = torch.zeros(len(suffix), len(groups), dtype=torch.bool)
    shortest = [min(map(len, group)) for group in groups]
    away = torch.tensor(shortest, dtype=torch.long).repeat(len(suffix), 1)
    nearest = [dict[int, int]() for _ in suffix]  # by group, for phrases that begin as a state does
    for number, group in enumerate(groups):
        for phrase in group:
            state = ROOT
            for left, symbol in zip(reversed(range(len(phrase))), phrase, strict=True):
                state = found.children[state][symbol]
                nearest[state][number] = min(left, nearest[state].get(number, left))
    for state in range(len(suffix)):
        for shorter in suffixes(state, suffix):
            for number, left in nearest[shorter].items():
                away[state, number] = min(left, int(away[state, number]))
                met[state, number] |= left == 0
    return met, away


class Tables(NamedTuple):
    """For each of P texts an automaton that finds phrases, and what its states say.

    Column 0 stands for all symbols that have no column. Zeros behind the end are no states, no
    symbols, and requirements that nothing is needed for.
    """

    follow: Int[Tensor, "P S C"]
    symbols: Int[Tensor, "P C"]
    met: Bool[Tensor, "P S R"]
    gain: Int[Tensor, "P S R"]  # tokens that a state saves of those of the shortest phrase
    shortest: Int[Tensor, "P R"]


def _tables(groups: Sequence[Phrases]) -> Tables:
    """Return the tables of one text."""
    table, found, suffix = finder([p for group in groups for p in group], torch.device("cpu"))
    met, need = _progress(groups, found, suffix)
    symbols = torch.cat([torch.zeros(1, dtype=torch.long), table.symbols])
    whole = table.follow, symbols, met, need[ROOT] - need, need[ROOT]
    return Tables(*(part[None] for part in whole))


class Required(Constraint[Found]):
    """Asks for one phrase of each group, in any order; eos comes behind them.

    A token may follow if behind it enough tokens are left, up to the limit, for what is then still
    missing. Where the scorer's best token is eos and something is missing, one phrase has to be
    said at once: so they come where the output would end, if they have not come by themselves.
    Every search says them all so; a banked beam finds better places for them.

    ``limit`` gives the most tokens for sources of given lengths, as the search is told. ``own``
    are further groups for each of several texts; which of them a source is, one more source says.
    """

    def __init__(
        self,
        groups: Sequence[Phrases],
        limit: Limit,
        device: torch.device,
        own: Sequence[Sequence[Phrases]] = (),
    ) -> None:
        self.limit, self.apart = limit, bool(own)
        texts = [_tables([*groups, *further]) for further in own or [()]]
        self.tables = tree.map_leaves(tree.join(texts), lambda leaf, _: leaf.to(device))

    def begin(self, sources: Mapping[str, Sequences]) -> Found:
        """Return the state before anything is read, one row for every source."""
        lengths = next(iter(sources.values())).lengths
        text = sources[OWN].data[:, 0] if self.apart else torch.zeros_like(lengths)
        met = self.tables.met.new_zeros(len(lengths), self.tables.met.shape[2])
        state, left = torch.full_like(lengths, BEFORE), self.limit(lengths) + 1
        return Found(text, state, met, left, torch.zeros_like(lengths, dtype=torch.bool))

    def read(self, tokens: Int[Tensor, "N"], state: Found) -> Found:
        """Read one token in every row."""
        symbols = self.tables.symbols[state.text]
        column = ((symbols == tokens[:, None]) & (symbols > 0)).int().argmax(1)
        after = self.tables.follow[state.text, state.state, column]
        met = state.met | self.tables.met[state.text, after]
        due = state.due & (met == state.met).all(1)
        return Found(state.text, after, met, state.left - 1, due)

    def note(self, log_probs: Float[Tensor, "N V"], state: Found) -> Found:
        """Remember where the output would end too early."""
        ends = log_probs.argmax(1) == EOS
        missing = self._need(state.text, state.state, state.met) > 0
        return state._replace(due=state.due | (ends & missing))

    def weigh(self, log_probs: Float[Tensor, "N V"], state: Found) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for what may not."""
        symbols = self.tables.symbols[state.text]
        now, then = self._needs(state)
        # With eos behind them, what is missing takes one token more.
        late = then + 1 > (state.left - 1)[:, None]
        aside = state.due[:, None] & (then >= now)
        bad = (late | aside | (symbols == EOS)) & (now > 0)
        return _without(log_probs, bad, symbols)

    def progress(self, state: Found) -> Progress:
        """Return how many tokens of the requirements each row has said."""
        whole = self.tables.shortest[state.text].sum(1, keepdim=True)
        now, then = self._needs(state)
        return Progress((whole - now)[:, 0], whole - then, self.tables.symbols[state.text])

    def _needs(self, state: Found) -> tuple[Int[Tensor, "N 1"], Int[Tensor, "N C"]]:
        """Return how many tokens are enough for all that is missing, now and behind each symbol."""
        text = state.text[:, None]
        after = self.tables.follow[state.text, state.state]
        met = state.met[:, None] | self.tables.met[text, after]
        now = self._need(state.text, state.state, state.met)[:, None]
        return now, self._need(text, after, met)

    def _need(
        self,
        text: Int[Tensor, "*#shape"],
        state: Int[Tensor, "*shape"],
        met: Bool[Tensor, "*shape R"],
    ) -> Shaped[Tensor, "*shape"]:
        """Return how many tokens are enough to say all that is missing.

        It is what the shortest phrases take, less what was said of one of them. Reading on in that
        one needs one token less, so there is always a token that makes it less.
        """
        if met.shape[-1] == 0:
            return torch.zeros_like(state)
        missing = ~met
        saved = (missing * self.tables.gain[text, state]).amax(-1)
        return (missing * self.tables.shortest[text]).sum(-1) - saved


def _without(
    log_probs: Float[Tensor, "N V"], bad: Bool[Tensor, "N C"], symbols: Int[Tensor, "N C"]
) -> Float[Tensor, "N V"]:
    """Return -inf in place of the log-probabilities of all symbols of bad columns."""
    rest = log_probs.masked_fill(bad[:, :1], -torch.inf)
    known = (symbols > 0) & (symbols < log_probs.shape[1])
    place = symbols.masked_fill(~known, 0)
    here = log_probs.gather(1, place).masked_fill(bad, -torch.inf)
    return rest.scatter(1, place, torch.where(known, here, rest[:, :1]))


Requirements = tuple[str | Annotated[tuple[str, ...], Field(min_length=1)], ...]


class RequiredBlueprint(ConstraintBlueprint):
    """Words and phrases that the output must hold, in any order.

    They come where they are likely, at the latest where the output would end or reach its limit.
    """

    kind: Literal["required"] = "required"
    phrases: Requirements = Field(min_length=1)
    """each a text, or several of which one must be there"""

    def build(self, target: Target) -> Required:
        """Make the constraint."""
        groups = [(one,) if isinstance(one, str) else one for one in self.phrases]
        symbols = [[written(text, target) for text in group] for group in groups]
        return Required(symbols, target.limit, target.device)
