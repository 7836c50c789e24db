"""States as values: trees of tensors that search reorders, shrinks and joins, never looking inside.

A tree is a tensor, None, a tuple, a NamedTuple, a dict or a frozen dataclass of trees. Every tensor
in it leads with N = B * K rows (the K hypotheses of a source are adjacent), except below a
``PerSource`` node, where it leads with the B sources. In any other dimension zeros behind the end
must not matter, so that trees can be joined; a node for which they would says how it is joined.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

T = TypeVar("T")


class PerSource:
    """Marks a node whose tensors lead with B sources; reordering hypotheses skips it."""


class Joins(ABC):
    """A node that says itself how it is joined."""

    @abstractmethod
    def join(self, others: Sequence[Self]) -> Self:
        """Return the rows of this node and of the others, behind one another."""


def map_leaves(tree: T, change: Callable[[Tensor, bool], Tensor], per_source: bool = False) -> T:
    """Return the tree with ``change(tensor, per_source)`` in place of every tensor."""
    return _map(tree, change, per_source)  # type: ignore[no-any-return]


def _map(tree: Any, change: Callable[[Tensor, bool], Tensor], per_source: bool) -> Any:
    per_source = per_source or isinstance(tree, PerSource)
    if isinstance(tree, Tensor):
        return change(tree, per_source)
    if isinstance(tree, tuple):
        parts = [_map(part, change, per_source) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if isinstance(tree, dict):
        return {key: _map(part, change, per_source) for key, part in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [field.name for field in dataclasses.fields(tree)]
        new = {name: _map(getattr(tree, name), change, per_source) for name in names}
        return type(tree)(**new)
    if tree is None or isinstance(tree, int | float | str):
        return tree
    raise TypeError(f"a state cannot hold a {type(tree).__name__}")


def leaves(tree: Any) -> Iterator[tuple[Tensor, bool]]:
    """Yield every tensor of the tree with whether it belongs to a source."""
    found: list[tuple[Tensor, bool]] = []

    def note(tensor: Tensor, per_source: bool) -> Tensor:
        found.append((tensor, per_source))
        return tensor

    map_leaves(tree, note)
    return iter(found)


def detach(tree: T) -> T:
    """Return the tree without its history: no gradient goes back through it."""
    return map_leaves(tree, lambda leaf, _: leaf.detach())


def reorder(tree: T, rows: Int[Tensor, "M"]) -> T:
    """Keep the given rows (hypotheses), in that order; what belongs to a source stays untouched."""
    return map_leaves(tree, lambda leaf, shared: leaf if shared else leaf.index_select(0, rows))


def keep(tree: T, sources: Int[Tensor, "M"], width: int) -> T:
    """Keep the given sources with all their ``width`` hypotheses."""
    rows = (sources[:, None] * width + torch.arange(width, device=sources.device)).flatten()
    return map_leaves(tree, lambda leaf, shared: leaf.index_select(0, sources if shared else rows))


def join(trees: Sequence[T]) -> T:
    """Lay the rows of several trees behind one another."""
    return _join(list(trees))  # type: ignore[no-any-return]


def _join(trees: list[Any]) -> Any:
    first = trees[0]
    if isinstance(first, Tensor):
        return _stack(trees)
    if isinstance(first, Joins):
        return first.join(trees[1:])
    if isinstance(first, tuple):
        parts = [_join(list(column)) for column in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if isinstance(first, dict):
        return {key: _join([tree[key] for tree in trees]) for key in first}
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return type(first)(**{n: _join([getattr(tree, n) for tree in trees]) for n in names})
    if any(tree != first for tree in trees):
        raise TypeError(f"states that differ in more than rows, {trees}, cannot be joined")
    return first


def _stack(tensors: list[Tensor]) -> Tensor:
    """Concatenate, the smaller with zeros behind their end in every other dimension."""
    sizes = [max(column) for column in zip(*(x.shape[1:] for x in tensors), strict=True)]
    if all(list(x.shape[1:]) == sizes for x in tensors):
        return torch.cat(tensors)
    whole = tensors[0].new_zeros(sum(map(len, tensors)), *sizes)
    start = 0
    for x in tensors:
        whole[(slice(start, start + len(x)), *map(slice, x.shape[1:]))] = x
        start += len(x)
    return whole


def widen(tree: T, width: int) -> T:
    """Repeat every row ``width`` times; what belongs to a source is not copied."""
    return map_leaves(
        tree, lambda leaf, shared: leaf if shared else leaf.repeat_interleave(width, 0)
    )
