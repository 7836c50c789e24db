"""Every kind of positions against plain loops in float64, written from the papers' formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from transduce.nn.cache import KV, FixedKV, GrowingKV
from transduce.nn.multihead import SelfAttention
from transduce.nn.positions import (
    LearnedPositionsBlueprint,
    Positions,
    PositionsBlueprint,
    Stack,
    Tensor2TensorBlueprint,
)
from transduce.nn.relative import (
    AlibiBlueprint,
    BucketsBlueprint,
    RotaryBlueprint,
    ShawBlueprint,
    ShawInHeads,
    TransformerXlBlueprint,
    TransformerXlInHeads,
    slopes,
)
from transduce.nn.span import FullSpan

WIDTH, HEADS, ROWS, SIZE = 12, 3, 2, 9
DEEP = WIDTH // HEADS
LENGTHS = torch.tensor([9, 5])
PARTS: list[PositionsBlueprint] = [
    RotaryBlueprint(base=50),
    ShawBlueprint(clip=3),
    TransformerXlBlueprint(),
    BucketsBlueprint(buckets=4, farthest=6),
    AlibiBlueprint(),
]

Vector = Float[Tensor, "d"]


class Layer(nn.Module):
    """One layer of self-attention with its positions."""

    def __init__(self, part: PositionsBlueprint, one_way: bool) -> None:
        super().__init__()
        self.one_way = one_way
        self.positions: Positions = part.build(Stack(WIDTH, HEADS, one_way, "here"))
        self.attention = SelfAttention(WIDTH, HEADS, in_heads=self.positions.in_heads())

    def both_ways(self, x: Tensor) -> Tensor:
        """Read padded rows as an encoder."""
        mask = torch.arange(SIZE) < LENGTHS[:, None]
        out: Tensor = self.attention(x, FullSpan().blocks(mask, self.positions, x.dtype))
        return out

    def onwards(self, x: Tensor, past: KV, length: Tensor) -> tuple[Tensor, KV]:
        """Read a few more tokens as a decoder."""
        blocks = FullSpan().onwards(past, length, x.shape[1], self.positions, x.dtype)
        return self.attention.extend(x, past, length, blocks)


def made(part: PositionsBlueprint, one_way: bool) -> Layer:
    torch.manual_seed(1)
    layer = Layer(part, one_way).double()
    for parameter in layer.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return layer


def turned(vector: Vector, place: int, base: float) -> Vector:
    """Multiply each pair (x, y), a complex number, by exp(i place base^(-2 pair / d))."""
    half, out = DEEP // 2, vector.clone()
    for pair in range(half):
        number = complex(vector[pair].item(), vector[pair + half].item())
        angle = place * base ** (-2 * pair / DEEP)
        number *= complex(math.cos(angle), math.sin(angle))
        out[pair], out[pair + half] = number.real, number.imag
    return out


def bucket_of_mesh_tensorflow(step: int, count: int, farthest: int, one_way: bool) -> int:
    """Return what T5's own procedure answers, in its order of steps."""
    found, behind = 0, -step
    if one_way:
        behind = max(behind, 0)
    else:
        count //= 2
        found += (behind < 0) * count
        behind = abs(behind)
    exact = count // 2
    if behind < exact:
        return found + behind
    ratio = torch.tensor(behind / exact).log() / math.log(farthest / exact)
    return found + min(exact + int((ratio * (count - exact)).item()), count - 1)


def plain(layer: Layer, part: PositionsBlueprint, x: Tensor, length: int) -> Tensor:
    """Attend over one row by loops: for every head, query and key on its own."""
    attention, seen = layer.attention, x[:length]
    table = attention.query_key_value
    query, keys, values = (table.weight @ seen.T + table.bias[:, None]).T.chunk(3, -1)
    out = torch.zeros(length, WIDTH, dtype=torch.float64)
    for head in range(HEADS):
        own = slice(head * DEEP, (head + 1) * DEEP)
        for place in range(length):
            last = place + 1 if layer.one_way else length
            scores, vectors = [], []
            for other in range(last):
                score, vector = weigh(
                    layer, part, head, place, other, query[place, own], keys[other, own]
                )
                scores.append(score)
                vectors.append(values[other, own] + vector)
            weights = torch.stack(scores).softmax(0)
            out[place, own] = (weights[:, None] * torch.stack(vectors)).sum(0)
    mixed: Tensor = attention.out(out)
    return mixed


def weigh(
    layer: Layer,
    part: PositionsBlueprint,
    head: int,
    place: int,
    other: int,
    query: Vector,
    key: Vector,
) -> tuple[Tensor, Vector]:
    """Return the score of one query and one key, and what their distance adds to the value."""
    nothing = torch.zeros(DEEP, dtype=torch.float64)
    if isinstance(part, RotaryBlueprint):
        query, key = turned(query, place, part.base), turned(key, other, part.base)
        return query @ key / DEEP**0.5, nothing
    if isinstance(part, ShawBlueprint):
        inside = layer.attention.in_heads
        assert isinstance(inside, ShawInHeads)
        row = max(-part.clip, min(part.clip, other - place)) + part.clip
        return query @ (key + inside.keys[row]) / DEEP**0.5, inside.vectors[row]
    if isinstance(part, TransformerXlBlueprint):
        inside = layer.attention.in_heads
        assert isinstance(inside, TransformerXlInHeads)
        return transformer_xl(inside, head, place - other, query, key) / DEEP**0.5, nothing
    score = query @ key / DEEP**0.5
    if isinstance(part, BucketsBlueprint):
        row = bucket_of_mesh_tensorflow(other - place, part.buckets, part.farthest, layer.one_way)
        return score + layer.positions.get_parameter("scores.weight")[row, head], nothing
    return score - abs(other - place) * slopes(HEADS)[head], nothing


def transformer_xl(
    inside: TransformerXlInHeads, head: int, distance: int, query: Vector, key: Vector
) -> Tensor:
    """Add the four terms of Dai 2019 (3.3), of a sinusoid that is made for this distance."""
    angles = [distance / 10000 ** (2 * pair / WIDTH) for pair in range(WIDTH // 2)]
    waves = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    relative = inside.maps[head] @ torch.tensor(waves, dtype=torch.float64)
    content, place = inside.content_bias[head, 0], inside.place_bias[head, 0]
    return query @ key + query @ relative + content @ key + place @ relative


def each_part(test: Callable[..., None]) -> pytest.MarkDecorator:
    mark: pytest.MarkDecorator = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)(
        test
    )
    return mark


@each_part
def test_an_encoder_layer_equals_the_formula(part: PositionsBlueprint) -> None:
    layer = made(part, one_way=False)
    x = torch.randn(ROWS, SIZE, WIDTH, dtype=torch.float64)
    found = layer.both_ways(x)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = plain(layer, part, x[row], length)
        torch.testing.assert_close(found[row, :length], expected, atol=1e-6, rtol=0)


def empty(capacity: int | None) -> KV:
    shape = (ROWS, HEADS, capacity or 0, DEEP)
    keys, values = torch.zeros(shape).double(), torch.zeros(shape).double()
    return GrowingKV(keys, values) if capacity is None else FixedKV(keys, values)


@each_part
@pytest.mark.parametrize("capacity", [None, SIZE, SIZE + 4])
@pytest.mark.parametrize("cuts", [[SIZE], [1] * SIZE, [4, 1, 4]])
def test_a_decoder_layer_equals_the_formula(
    part: PositionsBlueprint, capacity: int | None, cuts: list[int]
) -> None:
    layer = made(part, one_way=True)
    x = torch.randn(ROWS, SIZE, WIDTH, dtype=torch.float64)
    past, length, found = empty(capacity), torch.zeros(ROWS, dtype=torch.long), []
    for some in torch.split(x, cuts, 1):
        out, past = layer.onwards(some, past, length)
        found.append(out)
        length = length + some.shape[1]
    for row in range(ROWS):
        expected = plain(layer, part, x[row], SIZE)
        torch.testing.assert_close(torch.cat(found, 1)[row], expected, atol=1e-6, rtol=0)


@each_part
def test_rows_that_have_read_unequally_much_go_on_where_they_are(part: PositionsBlueprint) -> None:
    layer = made(part, one_way=True)
    x = torch.randn(ROWS, SIZE, WIDTH, dtype=torch.float64)
    past, read = empty(SIZE), torch.tensor([6, 2])
    for row, length in enumerate(read.tolist()):
        _, alone = layer.onwards(x[:, :length], empty(SIZE), torch.zeros(ROWS, dtype=torch.long))
        past.keys[row], past.values[row] = alone.keys[row], alone.values[row]
    some = torch.stack([x[row, at : at + 3] for row, at in enumerate(read.tolist())])
    found, _ = layer.onwards(some, past, read)
    for row, length in enumerate(read.tolist()):
        expected = plain(layer, part, x[row], length + 3)[-3:]
        torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("one_way", [True, False])
def test_buckets_are_those_of_t5(one_way: bool) -> None:
    """With the sizes of T5 itself, over more distances than it tells apart."""
    positions = BucketsBlueprint().build(Stack(WIDTH, HEADS, one_way, "here"))
    bias = positions.bias(None, torch.tensor([[200]]), torch.arange(401)[None])
    table = positions.get_parameter("scores.weight")
    rows = [bucket_of_mesh_tensorflow(step, 32, 128, one_way) for step in range(-200, 201)]
    assert bias is not None
    assert torch.equal(bias[0, :, 0], table[rows].T)
    assert len(set(rows)) == (32 if one_way else 31)  # no distance is 0 and ahead


def test_slopes_are_those_of_the_paper() -> None:
    assert slopes(8) == [1 / 2**power for power in range(1, 9)]
    assert slopes(16) == pytest.approx([2 ** (-power / 2) for power in range(1, 17)])
    assert slopes(1) == [2**-8]
    twelve = [1 / 2**power for power in range(1, 9)] + [2 ** (-p / 2) for p in (1, 3, 5, 7)]
    assert slopes(12) == pytest.approx(twelve)


def test_sinusoids_of_tensor2tensor() -> None:
    """The frequencies fall from 1 to 1/10000 in equal ratios."""
    places, width, first = [0, 1, 40], 6, 2
    out = Tensor2TensorBlueprint(first=first).build(Stack(width, 1, True, "here"))(
        torch.zeros(1, 3, width), torch.tensor([places])
    )
    for column, place in enumerate(places):
        angles = [(place + first) * frequency for frequency in (1, 0.01, 0.0001)]
        formula = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
        torch.testing.assert_close(out[0, column], formula, atol=1e-5, rtol=0)


def test_learned_positions_are_rows_of_a_table() -> None:
    positions = LearnedPositionsBlueprint(longest=5).build(Stack(WIDTH, HEADS, True, "here"))
    x, table = torch.randn(2, 3, WIDTH), positions.get_parameter("table.weight")
    out = positions(x, torch.tensor([[0, 1, 2], [2, 3, 4]]))
    torch.testing.assert_close(out[0], x[0] + table[:3] * WIDTH**0.5)
    torch.testing.assert_close(out[1], x[1] + table[2:] * WIDTH**0.5)
