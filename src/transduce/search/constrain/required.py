"""Words and phrases that have to be in the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field
from torch import Tensor

from transduce.search.constrain.automaton import BEFORE, ROOT, Phrases, Tree, finder, suffixes
from transduce.search.constrain.constraint import EOS, Constraint, ConstraintBlueprint, Target
from transduce.search.constrain.phrases import written
from transduce.sequences import Sequences

Limit = Callable[[Int[Tensor, "B"]], Int[Tensor, "B"]]


class Found(NamedTuple):
    """How far each row has come."""

    state: Int[Tensor, "N"]  # of the automaton that finds phrases
    met: Bool[Tensor, "N R"]  # which of the R requirements
    left: Int[Tensor, "N"]  # tokens that may still be said; at first the beginning is among them
    due: Bool[Tensor, "N"]  # a phrase has to be said now, and nothing else


def _progress(
    groups: Sequence[Phrases], tree: Tree, suffix: Sequence[int]
) -> tuple[Bool[Tensor, "S R"], Int[Tensor, "S R"]]:
    """Return which groups each state meets, and how many symbols each is away from every group."""
    met = torch.zeros(len(suffix), len(groups), dtype=torch.bool)
    away = torch.tensor([min(map(len, group)) for group in groups]).repeat(len(suffix), 1)
    nearest = [dict[int, int]() for _ in suffix]  # by group, for phrases that begin as a state does
    for number, group in enumerate(groups):
        for phrase in group:
            state = ROOT
            for left, symbol in zip(reversed(range(len(phrase))), phrase, strict=True):
                state = tree.children[state][symbol]
                nearest[state][number] = min(left, nearest[state].get(number, left))
    for state in range(len(suffix)):
        for shorter in suffixes(state, suffix):
            for number, left in nearest[shorter].items():
                away[state, number] = min(left, int(away[state, number]))
                met[state, number] |= left == 0
    return met, away


class Required(Constraint[Found]):
    """Asks for one phrase of each group, in any order; eos comes behind them.

    A token may follow if behind it enough tokens are left, up to the limit, for what is then still
    missing. Where the scorer's best token is eos and something is missing, one phrase has to be
    said at once: so they come where the output would end, if they have not come by themselves.
    Every search says them all so; to find better places for them in a beam is a matter of the
    search (dynamic beam allocation, Post & Vilar 2018).

    ``limit`` gives the most tokens for sources of given lengths, as the search is told.
    """

    def __init__(self, groups: Sequence[Phrases], limit: Limit, device: torch.device) -> None:
        self.limit = limit
        self.table, tree, suffix = finder([p for group in groups for p in group], device)
        met, need = _progress(groups, tree, suffix)
        self.shortest = need[ROOT].to(device)
        self.met, self.gain = met.to(device), (need[ROOT] - need).to(device)

    def begin(self, sources: Mapping[str, Sequences]) -> Found:
        """Return the state before anything is read, one row for every source."""
        lengths = next(iter(sources.values())).lengths
        met = self.met.new_zeros(len(lengths), self.met.shape[1])
        state, left = torch.full_like(lengths, BEFORE), self.limit(lengths) + 1
        return Found(state, met, left, torch.zeros_like(met[:, 0]))

    def read(self, tokens: Int[Tensor, "N"], state: Found) -> Found:
        """Read one token in every row."""
        after = self.table.read(tokens, state.state)
        met = state.met | self.met[after]
        due = state.due & (met == state.met).all(1)
        return Found(after, met, state.left - 1, due)

    def note(self, log_probs: Float[Tensor, "N V"], state: Found) -> Found:
        """Remember where the output would end too early."""
        ends = log_probs.argmax(1) == EOS
        return state._replace(due=state.due | (ends & ~state.met.all(1)))

    def weigh(self, log_probs: Float[Tensor, "N V"], state: Found) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for what may not."""
        now = self._need(state.state, state.met)
        after = self.table.follow[state.state]
        then = self._need(after, state.met[:, None] | self.met[after])
        # With eos behind them, what is missing takes one token more.
        late = then + 1 > (state.left - 1)[:, None]
        aside = state.due[:, None] & (then >= now[:, None])
        ends = F.pad(self.table.symbols == EOS, (1, 0))
        bad = late | aside | ends
        return self.table.without(log_probs, bad & (now > 0)[:, None])

    def _need(
        self, state: Int[Tensor, "*shape"], met: Bool[Tensor, "*shape R"]
    ) -> Shaped[Tensor, "*shape"]:
        """Return how many tokens are enough to say all that is missing.

        It is what the shortest phrases take, less what was said of one of them. Reading on in that
        one needs one token less, so there is always a token that makes it less.
        """
        missing = ~met
        return (missing * self.shortest).sum(-1) - (missing * self.gain[state]).amax(-1)


class RequiredBlueprint(ConstraintBlueprint):
    """Words and phrases that the output must hold, in any order.

    They come where they are likely, at the latest where the output would end or reach its limit.
    """

    kind: Literal["required"] = "required"
    phrases: tuple[str | Annotated[tuple[str, ...], Field(min_length=1)], ...] = Field(min_length=1)
    """each a text, or several of which one must be there"""

    def build(self, target: Target) -> Required:
        """Make the constraint."""
        groups = [(one,) if isinstance(one, str) else one for one in self.phrases]
        symbols = [[written(text, target) for text in group] for group in groups]
        return Required(symbols, target.limit, target.device)
