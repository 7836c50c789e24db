"""The notes of a search: how they find room for each step, and how they are held."""

from __future__ import annotations

from typing import Final, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from transduce import tree
from transduce.asking import free

N = TypeVar("N")

STEPS: Final = 32  # steps that notes have room for at first, if they can grow


def room_for(limit: Int[Tensor, "A"]) -> int:
    """Return for how many steps notes should have room at first.

    They grow where it costs nothing to ask how long they are. Elsewhere they have room for all, and
    one step behind the last, where sources write that are answered without anybody knowing.
    """
    return STEPS if free(limit) else int(limit.max()) + 1


def with_room(notes: N, length: Int[Tensor, "A"]) -> N:
    """Return notes (A, T, ...), begun with ``room_for``, to which all can write at ``length``."""
    if not free(length):
        return notes
    sizes = {leaf.shape[1] for leaf, _ in tree.leaves(notes)}
    if int(length.max()) < min(sizes):
        return notes

    def grow(leaf: Tensor, _: bool) -> Tensor:
        return torch.cat([leaf, torch.zeros_like(leaf)], 1)

    return tree.map_leaves(notes, grow)


def held(going: Bool[Tensor, "A"], new: N, old: N) -> N:
    """Return the new notes on sources that go on, and the old ones on those that do not.

    Where notes were changed in place, both are one, and nothing was written where it counts: a
    source that is held writes behind its end, at the same place every time.
    """
    before = (leaf for leaf, _ in tree.leaves(old))

    def choose(leaf: Tensor, _: bool) -> Tensor:
        was = next(before)
        if leaf is was:
            return leaf
        return leaf.where(going.view(-1, *[1] * (leaf.dim() - 1)), was)

    return tree.map_leaves(new, choose)
