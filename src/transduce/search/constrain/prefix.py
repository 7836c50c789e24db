"""Outputs that begin as is wanted, each source's own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.search.constrain.automaton import ROOT, Automaton, grow, lay
from transduce.search.constrain.constraint import Constraint, ConstraintBlueprint, Target
from transduce.search.constrain.phrases import written
from transduce.sequences import Sequences
from transduce.tree import PerSource


@dataclass(frozen=True)
class Wanted(PerSource):
    """How the output of each source begins."""

    tokens: Int[Tensor, "B P"]
    lengths: Int[Tensor, "B"]


class PrefixState(NamedTuple):
    """How much was read behind the beginning (-1: not even that), and what is wanted."""

    length: Int[Tensor, "N"]
    wanted: Wanted


class ForcedPrefix(Constraint[PrefixState]):
    """Allows only the symbols of a prefix for as long as there are any.

    The prefixes are given as one more source of this ``name``, and may be empty.
    """

    def __init__(self, name: str = "prefix") -> None:
        self.name = name

    def begin(self, sources: Mapping[str, Sequences]) -> PrefixState:
        """Return the state before anything is read, one row for every source."""
        prefix = sources[self.name]
        length = torch.full_like(prefix.lengths, -1)
        return PrefixState(length, Wanted(prefix.data, prefix.lengths))

    def read(self, tokens: Int[Tensor, "N"], state: PrefixState) -> PrefixState:
        """Read one token in every row."""
        return state._replace(length=state.length + 1)

    def weigh(self, log_probs: Float[Tensor, "N V"], state: PrefixState) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for what may not."""
        tokens, lengths = state.wanted.tokens, state.wanted.lengths
        rows = len(state.length) // max(1, len(lengths))
        left = (state.length < lengths.repeat_interleave(rows))[:, None]
        place = torch.where(left, state.length[:, None], 0)
        if tokens.shape[1] == 0:
            return log_probs
        symbols = torch.arange(log_probs.shape[1], device=log_probs.device)
        wanted = tokens.repeat_interleave(rows, 0).gather(1, place)
        return log_probs.masked_fill(left & (symbols != wanted), -torch.inf)


def opening(prefix: Sequence[int], device: torch.device) -> Automaton:
    """Allow only outputs that begin with ``prefix``."""
    children = grow([prefix]).children
    end, dead = len(children) - 1, len(children)
    otherwise = [*[dead] * end, end, dead]
    table = lay([*children, {}], otherwise, [dead, *range(end, ROOT - 1, -1)], device)
    return Automaton(table, torch.arange(len(otherwise), device=device) == dead)


class PrefixBlueprint(ConstraintBlueprint):
    """The output begins with this text, cut into symbols as a text of its own."""

    begins: ClassVar[bool] = True

    kind: Literal["prefix"] = "prefix"
    text: str
    """how it begins"""

    def build(self, target: Target) -> Automaton:
        """Make the constraint."""
        return opening(written(self.text, target), target.device)
