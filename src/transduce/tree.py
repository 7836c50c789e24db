"""States as values: trees of tensors that search reorders and shrinks without looking inside.

A tree is a tensor, None, a tuple, a NamedTuple, a dict or a frozen dataclass of trees. Every tensor
in it leads with N = B * K rows (the K hypotheses of a source are adjacent), except below a
``PerSource`` node, where it leads with the B sources.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

T = TypeVar("T")


class PerSource:
    """Marks a node whose tensors lead with B sources; reordering hypotheses skips it."""


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


def widen(tree: T, width: int) -> T:
    """Repeat every row ``width`` times; what belongs to a source is not copied."""
    return map_leaves(
        tree, lambda leaf, shared: leaf if shared else leaf.repeat_interleave(width, 0)
    )
