"""Windowed self-attention, computed in blocks, against one dense attention under a mask."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from transduce.nn.cache import hide
from transduce.nn.multihead import SelfAttention, everything
from transduce.nn.positions import NoPositionsBlueprint, Positions, PositionsBlueprint, Stack
from transduce.nn.relative import (
    AlibiBlueprint,
    BucketsBlueprint,
    RotaryBlueprint,
    ShawBlueprint,
    TransformerXlBlueprint,
)
from transduce.nn.span import WindowSpan

WIDTH, HEADS, SIZE = 12, 3, 17
LENGTHS = torch.tensor([17, 1, 9])
MASK = torch.arange(SIZE) < LENGTHS[:, None]
WINDOWS = [(1, 0), (3, 0), (2, 1), (2, 3), (1, 20), (30, 0)]
PARTS: list[PositionsBlueprint] = [
    RotaryBlueprint(),
    ShawBlueprint(clip=2),
    TransformerXlBlueprint(),
    BucketsBlueprint(buckets=4, farthest=5),
    AlibiBlueprint(),
]


def visible(reach: int, everywhere: int) -> Bool[Tensor, "S S"]:
    """i sees j if they are near, or one of them is among the first (Beltagy 2020, 3.1)."""
    seen = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    for query in range(SIZE):
        for key in range(SIZE):
            near = abs(query - key) <= reach
            seen[query, key] = near or query < everywhere or key < everywhere
    return seen


@pytest.mark.parametrize("size", [1, 4, 5, 64])
@pytest.mark.parametrize(("reach", "everywhere"), WINDOWS)
def test_windows_equal_torch_under_a_mask(reach: int, everywhere: int, size: int) -> None:
    torch.manual_seed(1)
    ours = SelfAttention(WIDTH, HEADS)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    theirs.in_proj_weight.data.copy_(ours.query_key_value.weight)
    theirs.in_proj_bias.data.copy_(ours.query_key_value.bias.data.normal_())
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(3, SIZE, WIDTH)
    blocks = WindowSpan(reach, everywhere, size).blocks(MASK, Positions(), x.dtype)
    found = ours(x, blocks)
    for row, length in enumerate(LENGTHS.tolist()):
        real, hidden = x[row : row + 1, :length], ~visible(reach, everywhere)[:length, :length]
        expected, _ = theirs(real, real, real, attn_mask=hidden)
        torch.testing.assert_close(found[row, :length], expected[0], atol=1e-5, rtol=0)
    assert found.isfinite().all(), "padding that sees nothing is still a number"


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)
@pytest.mark.parametrize(("reach", "everywhere"), [(3, 0), (2, 2)])
def test_distances_are_the_same_in_blocks(
    part: PositionsBlueprint, reach: int, everywhere: int
) -> None:
    torch.manual_seed(2)
    places = part.build(Stack(WIDTH, HEADS, False, "here"))
    attention = SelfAttention(WIDTH, HEADS, in_heads=places.in_heads())
    x, every = torch.randn(3, SIZE, WIDTH), torch.arange(SIZE)[None]
    hidden = hide(~(visible(reach, everywhere) & MASK[:, None]), x.dtype)[:, None]
    dense = places.bias(hidden, every, every)
    assert dense is not None
    expected = attention(x, everything(dense))
    found = attention(x, WindowSpan(reach, everywhere, 4).blocks(MASK, places, x.dtype))
    torch.testing.assert_close(found[MASK], expected[MASK], atol=1e-5, rtol=0)


def test_the_cost_grows_with_the_length_alone() -> None:
    places = NoPositionsBlueprint().build(Stack(WIDTH, HEADS, False, "here"))
    costs = []
    for size in (512, 1024):
        mask = torch.ones(1, size, dtype=torch.bool)
        blocks = WindowSpan(8, 1, 64).blocks(mask, places, torch.float32)
        costs.append(sum(block.bias.numel() for block in blocks if block.bias is not None))
    assert costs[1] < 2.1 * costs[0]
    assert costs[1] < 1024 * 1024 / 8
