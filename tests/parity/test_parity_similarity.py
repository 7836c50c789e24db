"""Shared heads and the cosine against plain loops in float64, written from the papers' formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transduce.nn.cache import GrowingKV, padding_bias
from transduce.nn.multihead import CrossAttention, SelfAttention, everything, grouped_product
from transduce.nn.similarity import Cosine, CosineBlueprint, DotBlueprint, SimilarityBlueprint

WIDTH, HEADS, ROWS, SIZE = 12, 6, 2, 5
DEEP = WIDTH // HEADS
LENGTHS = torch.tensor([5, 3])
PARTS: list[SimilarityBlueprint] = [DotBlueprint(), CosineBlueprint(scale=3.0)]

Rows = Float[Tensor, "L D"]


def score(query: Tensor, key: Tensor, attention: SelfAttention | CrossAttention) -> Tensor:
    """q . k / sqrt(d), or g cos(q, k)."""
    found: Tensor = torch.dot(query, key) / DEEP**0.5
    if isinstance(attention.similarity, Cosine):
        found = attention.similarity.scale * torch.dot(query / query.norm(), key / key.norm())
    return found


def plain(
    attention: SelfAttention | CrossAttention,
    projected: tuple[Rows, Rows, Rows],
    groups: int,
    one_way: bool,
) -> Rows:
    """Attend by loops: head h looks at keys and values number h / (H / G)."""
    queries, keys, values = projected
    out = torch.zeros_like(queries)
    for head in range(HEADS):
        own = slice(head * DEEP, (head + 1) * DEEP)
        group = head // (HEADS // groups)
        shared = slice(group * DEEP, (group + 1) * DEEP)
        for place, query in enumerate(queries[:, own]):
            last = place + 1 if one_way else len(keys)
            scores = [score(query, key, attention) for key in keys[:last, shared]]
            weights = torch.stack(scores).softmax(0)
            out[place, own] = weights @ values[:last, shared]
    mixed: Rows = attention.out(out)
    return mixed


def shaken(module: nn.Module) -> None:
    for parameter in module.double().parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_self_attention_equals_the_formula(part: SimilarityBlueprint, groups: int) -> None:
    torch.manual_seed(1)
    ours = SelfAttention(WIDTH, HEADS, groups, part.build())
    shaken(ours)
    x = torch.randn(ROWS, SIZE, WIDTH, dtype=torch.float64)
    both = ours(x, everything(padding_bias(torch.arange(SIZE) < LENGTHS[:, None], x.dtype)))
    nothing = torch.zeros(ROWS, groups, 0, DEEP, dtype=torch.float64)
    past, length = GrowingKV(nothing, nothing), torch.zeros(ROWS, dtype=torch.long)
    onwards = []
    for part_of_x in torch.split(x, [2, 1, 2], 1):
        hidden = past.causal(length, part_of_x.shape[1], x.dtype)
        out, grown = ours.extend(part_of_x, past, length, everything(hidden))
        assert isinstance(grown, GrowingKV)
        past, length = grown, length + part_of_x.shape[1]
        onwards.append(out)
    shared = groups * DEEP
    for row, real in enumerate(LENGTHS.tolist()):
        query, keys, values = ours.query_key_value(x[row]).split((WIDTH, shared, shared), -1)
        expected = plain(ours, (query[:real], keys[:real], values[:real]), groups, one_way=False)
        torch.testing.assert_close(both[row, :real], expected)
        expected = plain(ours, (query, keys, values), groups, one_way=True)
        torch.testing.assert_close(torch.cat(onwards, 1)[row], expected)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_cross_attention_equals_the_formula(part: SimilarityBlueprint, groups: int) -> None:
    """With three hypotheses of each source."""
    torch.manual_seed(2)
    memory, width = 7, 3
    ours = CrossAttention(WIDTH, HEADS, memory, groups, part.build())
    shaken(ours)
    x = torch.randn(ROWS * width, 2, WIDTH, dtype=torch.float64)
    states = torch.randn(ROWS, SIZE, memory, dtype=torch.float64)
    mask = torch.arange(SIZE) < LENGTHS[:, None]
    found = ours(x, ours.prepare(states), padding_bias(mask, x.dtype))
    for row in range(ROWS * width):
        source, real = row // width, int(LENGTHS[row // width])
        keys, values = ours.key_value(states[source, :real]).chunk(2, -1)
        expected = plain(ours, (ours.query(x[row]), keys, values), groups, one_way=False)
        torch.testing.assert_close(found[row], expected)


def test_the_fused_kernel_groups_heads_alike() -> None:
    """What a GPU runs, on a CPU: the same heads share the same keys."""
    torch.manual_seed(3)
    query = torch.randn(ROWS, HEADS, 4, DEEP, dtype=torch.float64)
    keys, values = torch.randn(2, ROWS, 2, SIZE, DEEP, dtype=torch.float64)
    weights = grouped_product(query / DEEP**0.5, keys.transpose(2, 3)).softmax(-1)
    fused = F.scaled_dot_product_attention(query, keys, values, enable_gqa=True)
    torch.testing.assert_close(fused, grouped_product(weights, values))
