"""Words and phrases that may not be in the output."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from transduce.problem import Problem
from transduce.search.constrain.automaton import Automaton, Phrases, finder, suffixes
from transduce.search.constrain.constraint import ConstraintBlueprint, Target


def forbid(phrases: Phrases, device: torch.device) -> Automaton:
    """Forbid each symbol that would complete one of the phrases."""
    table, tree, suffix = finder(phrases, device)
    bad = [any(s in tree.ends for s in suffixes(n, suffix)) for n in range(len(tree.children))]
    return Automaton(table, torch.tensor(bad, device=device))


def written(text: str, target: Target) -> list[int]:
    """Return the symbols of a text.

    Raises:
        Problem: it has none, or the target side has no symbol for a part of it.
    """
    ids = target.symbols(text)
    if not ids:
        raise Problem("a phrase is blank; leave it out", "constraints")
    if 0 in ids:
        raise Problem(
            f"{text!r} holds what the model has no symbol for, so it can never write it; spell "
            "it otherwise or leave it out",
            "constraints",
        )
    return ids


class ForbiddenBlueprint(ConstraintBlueprint):
    """Words and phrases that the output may not hold.

    They are found as symbols: a word that is written in other pieces is another string of
    symbols, and one whose pieces begin a longer word forbids that too.
    """

    kind: Literal["forbidden"] = "forbidden"
    phrases: tuple[str, ...] = Field(min_length=1)
    """what may not be written"""

    def build(self, target: Target) -> Automaton:
        """Make the constraint."""
        return forbid([written(phrase, target) for phrase in self.phrases], target.device)
