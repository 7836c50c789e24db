from __future__ import annotations

import torch

from transduce.nn.cache import FixedKV, GrowingKV, padding_bias
from transduce.nn.multihead import CrossAttention, SelfAttention, everything
from transduce.tree import leaves, reorder

ROWS, HEADS, WIDTH = 2, 2, 8
LENGTH = torch.tensor([0, 2])


def some(tokens: int) -> torch.Tensor:
    return torch.randn(ROWS, HEADS, tokens, WIDTH // HEADS)


def test_a_growing_cache_stays_valid_after_it_was_extended() -> None:
    first = GrowingKV(some(3), some(3))
    keys, values = first.keys.clone(), first.values.clone()
    left, right = first.append(some(1), some(1), LENGTH), first.append(some(2), some(2), LENGTH)
    assert torch.equal(first.keys, keys)
    assert torch.equal(first.values, values)
    assert left.keys.shape[2] == 4
    assert torch.equal(right.values[:, :, :3], values)


def test_the_first_tokens_of_a_growing_cache_are_its_own() -> None:
    """What it holds must not share memory with the values it was projected with."""
    both = torch.randn(ROWS, 3, 2 * WIDTH)
    keys, values = (x.view(ROWS, 3, HEADS, -1).transpose(1, 2) for x in both.chunk(2, -1))
    cache = GrowingKV(some(0), some(0)).append(keys, values, LENGTH)
    addresses = {leaf.untyped_storage().data_ptr() for leaf, _ in leaves(cache)}
    assert addresses.isdisjoint({both.untyped_storage().data_ptr()})
    assert len(addresses) == 2


def test_what_is_forgotten_is_free_and_what_follows_stands_where_it_stood() -> None:
    whole = GrowingKV(some(5), some(5))
    assert whole.forget(0) is whole
    less = whole.forget(3)
    assert torch.equal(less.keys, whole.keys[:, :, 3:])
    assert less.values.untyped_storage().nbytes() == less.values.nbytes
    assert less.forget(2) is less
    for cache in (less, less.append(some(1), some(1), LENGTH).forget(6)):
        assert cache.slots(2) == cache.near(LENGTH, 2).max() + 1 == cache.place(LENGTH, 2).max() + 1
    assert less.near(LENGTH, 2).tolist() == [[3, 4, 5, 6]]
    assert less.place(LENGTH, 2).tolist() == [[5, 6]]


def test_a_fixed_cache_writes_each_row_at_its_own_length_in_place() -> None:
    cache = FixedKV(torch.zeros(ROWS, HEADS, 5, 4), torch.zeros(ROWS, HEADS, 5, 4))
    keys, values = some(2), some(2)
    after = cache.append(keys, values, LENGTH)
    assert after.keys.data_ptr() == cache.keys.data_ptr()
    assert torch.equal(after.keys[0, :, 0:2], keys[0])
    assert torch.equal(after.keys[1, :, 2:4], keys[1])
    assert torch.equal(after.values[1, :, 2:4], values[1])
    assert (after.keys[0, :, 2:] == 0).all()
    assert (after.keys[1, :, [0, 1, 4]] == 0).all()


def test_a_fixed_cache_hides_later_tokens_and_what_is_not_written() -> None:
    cache = FixedKV(torch.zeros(ROWS, HEADS, 5, 4), torch.zeros(ROWS, HEADS, 5, 4))
    seen = (cache.causal(LENGTH, 2, torch.float32) == 0).long()
    assert seen[0, 0].tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert seen[1, 0].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]


def test_a_growing_cache_hides_later_tokens_only() -> None:
    cache = GrowingKV(some(2), some(2))
    bias = cache.causal(LENGTH, 2, torch.float32)
    assert bias is not None
    assert (bias == 0).long()[0, 0].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert cache.causal(LENGTH, 1, torch.float32) is None


def test_reordering_moves_caches_and_leaves_the_source() -> None:
    cross = CrossAttention(WIDTH, HEADS, 6).prepare(torch.randn(1, 4, 6))
    cache = GrowingKV(some(3), some(3))
    rows = torch.tensor([1, 1])
    moved, same = reorder((cache, cross), rows)
    assert torch.equal(moved.keys[0], cache.keys[1])
    assert same.keys is cross.keys


def test_watching_changes_nothing() -> None:
    attention, x = SelfAttention(WIDTH, HEADS), torch.randn(ROWS, 4, WIDTH)
    bias = everything(padding_bias(torch.ones(ROWS, 4, dtype=torch.bool), x.dtype))
    expected = attention(x, bias)
    handle = attention.weights.register_forward_hook(lambda *_: None)
    assert attention.weights.watched
    assert torch.equal(attention(x, bias), expected)
    handle.remove()
    assert not attention.weights.watched
