from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transduce.tree import Joins, PerSource, join, keep, leaves, map_leaves, reorder, widen


class Pair(NamedTuple):
    left: Tensor
    right: Tensor | None


@dataclass(frozen=True)
class Cache:
    keys: Tensor
    size: int


@dataclass(frozen=True)
class Source(PerSource):
    states: Tensor
    inner: tuple[Tensor, ...]


def rows(count: int, *shape: int) -> Tensor:
    """Rows that can be told apart: row r holds r."""
    return torch.arange(count).reshape(-1, *[1] * len(shape)).expand(count, *shape).clone()


def every_kind(sources: int, width: int) -> dict[str, object]:
    """A tree with every kind of node."""
    n = sources * width
    return {
        "tensor": rows(n),
        "named": Pair(rows(n, 2), None),
        "tuple": (rows(n, 3), (rows(n),)),
        "dataclass": Cache(rows(n, 2, 2), 7),
        "source": Source(rows(sources, 4), (rows(sources),)),
        "constants": (None, 3, 0.5, "name", True),
    }


def test_mapping_keeps_every_node_and_visits_every_tensor_once() -> None:
    tree = every_kind(2, 3)
    seen: list[Tensor] = []

    def note(leaf: Tensor, _: bool) -> Tensor:
        seen.append(leaf)
        return leaf + 1

    new = map_leaves(tree, note)
    assert len(seen) == len({id(leaf) for leaf in seen}) == 7
    assert new.keys() == tree.keys()
    named, data, source = new["named"], new["dataclass"], new["source"]
    assert isinstance(named, Pair)
    assert isinstance(data, Cache)
    assert isinstance(source, Source)
    assert named.right is None
    assert data.size == 7
    assert new["constants"] == tree["constants"]
    for before, (after, _) in zip(seen, leaves(new), strict=True):
        assert torch.equal(after, before + 1)


def test_leaves_say_what_belongs_to_a_source() -> None:
    shared = [tensor.shape[0] for tensor, per_source in leaves(every_kind(2, 3)) if per_source]
    own = [tensor.shape[0] for tensor, per_source in leaves(every_kind(2, 3)) if not per_source]
    assert shared == [2, 2]
    assert own == [6] * 5


@pytest.mark.parametrize("thing", [[1], {1}, object(), Cache])
def test_a_state_cannot_hold_anything_else(thing: object) -> None:
    with pytest.raises(TypeError, match="a state cannot hold a"):
        map_leaves((thing,), lambda leaf, _: leaf)


def test_nothing_is_changed_in_place() -> None:
    tree = every_kind(2, 2)
    before = [leaf.clone() for leaf, _ in leaves(tree)]
    reorder(tree, torch.tensor([3, 3, 0, 1]))
    keep(tree, torch.tensor([1]), 2)
    widen(tree, 2)
    for (leaf, _), old in zip(leaves(tree), before, strict=True):
        assert torch.equal(leaf, old)


sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(sizes, st.data())
@settings(max_examples=50)
def test_reorder_picks_rows_and_skips_sources(size: tuple[int, int], data: st.DataObject) -> None:
    sources, width = size
    n = sources * width
    chosen = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2 * n))
    tree = every_kind(sources, width)
    for leaf, per_source in leaves(reorder(tree, torch.tensor(chosen))):
        expected = list(range(sources)) if per_source else chosen
        assert leaf.reshape(len(leaf), -1)[:, 0].tolist() == expected


@given(sizes, st.data())
@settings(max_examples=50)
def test_reordering_twice_is_reordering_once(size: tuple[int, int], data: st.DataObject) -> None:
    n = size[0] * size[1]
    index = st.lists(st.integers(0, n - 1), min_size=n, max_size=n).map(torch.tensor)
    first, second = data.draw(index), data.draw(index)
    tree = every_kind(*size)
    twice, once = reorder(reorder(tree, first), second), reorder(tree, first[second])
    for (left, _), (right, _) in zip(leaves(twice), leaves(once), strict=True):
        assert torch.equal(left, right)


@given(sizes, st.data())
@settings(max_examples=50)
def test_keep_takes_sources_with_all_their_rows(size: tuple[int, int], data: st.DataObject) -> None:
    sources, width = size
    chosen = data.draw(st.lists(st.integers(0, sources - 1), min_size=1, unique=True))
    own = [source * width + place for source in chosen for place in range(width)]
    kept = keep(every_kind(sources, width), torch.tensor(chosen), width)
    for leaf, per_source in leaves(kept):
        expected = chosen if per_source else own
        assert leaf.reshape(len(leaf), -1)[:, -1].tolist() == expected


@given(sizes, st.integers(1, 4))
@settings(max_examples=50)
def test_widen_repeats_rows_side_by_side(size: tuple[int, int], times: int) -> None:
    sources, width = size
    own = [row for row in range(sources * width) for _ in range(times)]
    for leaf, per_source in leaves(widen(every_kind(sources, width), times)):
        expected = list(range(sources)) if per_source else own
        assert leaf.reshape(len(leaf), -1)[:, -1].tolist() == expected


def test_joined_trees_are_rows_behind_one_another() -> None:
    joined = join([every_kind(1, 3), every_kind(2, 3), every_kind(1, 3)])
    assert joined.keys() == every_kind(1, 3).keys()
    sizes = {(len(leaf), per_source) for leaf, per_source in leaves(joined)}
    assert sizes == {(12, False), (4, True)}
    tensor = joined["tensor"]
    assert isinstance(tensor, Tensor)
    assert tensor.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert joined["constants"] == (None, 3, 0.5, "name", True)


def test_what_is_smaller_gets_zeros_behind_its_end() -> None:
    joined = join([torch.ones(1, 3, 1), torch.ones(2, 1, 2)])
    assert joined.tolist() == [[[1, 0], [1, 0], [1, 0]], *[[[1, 1], [0, 0], [0, 0]]] * 2]
    assert not join([torch.ones(1, 2).bool(), torch.ones(1, 3).bool()])[0, 2]


@dataclass(frozen=True)
class Counted(Joins):
    rows: Tensor

    def join(self, others: Sequence[Counted]) -> Counted:
        return Counted(torch.cat([self.rows, *(other.rows for other in others)]) + len(others))


def test_a_node_may_know_how_it_is_joined() -> None:
    parts = [{"node": Counted(rows(2))} for _ in range(3)]
    assert join(parts)["node"].rows.tolist() == [2, 3, 2, 3, 2, 3]


def test_states_of_different_kinds_are_not_joined() -> None:
    with pytest.raises(TypeError, match="cannot be joined"):
        join([Cache(rows(2), 7), Cache(rows(2), 8)])
