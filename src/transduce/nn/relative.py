"""Positions that attention sees as distances: rotary, Shaw's, Transformer-XL's, T5's and ALiBi."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from transduce.nn.multihead import grouped_product
from transduce.nn.positions import (
    InHeads,
    Positions,
    PositionsBlueprint,
    Relation,
    Stack,
    frequencies,
)
from transduce.problem import Problem


class RotaryInHeads(InHeads):
    """Turns pairs of dimensions by angles that grow with the place, so that a product of query and
    key sees the distance alone (Su 2021)."""

    def __init__(self, width: int, base: float) -> None:
        super().__init__()
        self.width, self.base = width, base

    def turn(
        self, x: Float[Tensor, "N H T d"], place: Int[Tensor, "_ T"]
    ) -> Float[Tensor, "N H T d"]:
        """Turn; angles are computed in float32, as bf16 knows no place beyond 256."""
        pair = torch.arange(0, self.width, 2, device=x.device, dtype=torch.float32)
        angle = place[:, None, :, None] * torch.exp(pair * (-math.log(self.base) / self.width))
        sine, cosine = angle.sin().to(x.dtype), angle.cos().to(x.dtype)
        # halves of a head are paired: which two dimensions make a pair is arbitrary
        left, right = x.chunk(2, -1)
        return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)


class Rotary(Positions):
    """Queries and keys turned by their places."""

    def __init__(self, width: int, base: float) -> None:
        super().__init__()
        self.width, self.base = width, base

    def in_heads(self) -> InHeads:
        """Make what one layer needs."""
        return RotaryInHeads(self.width, self.base)


class RotaryBlueprint(PositionsBlueprint):
    """Queries and keys turned by an angle for each place (Su 2021)."""

    kind: Literal["rotary"] = "rotary"
    base: float = Field(10_000.0, gt=1)
    """the slowest pair of dimensions turns once in about 6.3 times so many positions"""

    def build(self, stack: Stack) -> Positions:
        """Make them.

        Raises:
            Problem: a head has no pairs of dimensions.
        """
        if (width := stack.width // stack.heads) % 2:
            raise Problem(
                f"rotary positions turn pairs of dimensions, and {stack.heads} heads of a width of "
                f"{stack.width} have {width} each; make that even",
                f"{stack.where}.heads",
            )
        return Rotary(width, self.base)


@dataclass(frozen=True)
class ShawRelation(Relation):
    """One table for keys and one for values, and which row each pair of positions uses."""

    keys: Float[Tensor, "R d"]
    vectors: Float[Tensor, "R d"]
    row: Int[Tensor, "_ 1 T S"]

    def scores(
        self, query: Float[Tensor, "N H T d"], keys: Float[Tensor, "N G S d"]
    ) -> Float[Tensor, "N H T S"]:
        """Multiply queries with the few different vectors, then spread the products."""
        products = torch.matmul(query, self.keys.t())
        return products.gather(3, self.row.expand(*query.shape[:3], -1))

    def values(
        self, mixed: Float[Tensor, "N H T d"], weights: Float[Tensor, "N H T S"]
    ) -> Float[Tensor, "N H T d"]:
        """Add up the weights of each different vector, then mix these."""
        few = weights.new_zeros(*weights.shape[:3], len(self.vectors))
        few = few.scatter_add(3, self.row.expand_as(weights), weights)
        return mixed + torch.matmul(few, self.vectors.to(few.dtype))


class ShawInHeads(InHeads):
    """Vectors of clipped distances, which all heads of a layer share (Shaw 2018)."""

    def __init__(self, width: int, clip: int, one_way: bool) -> None:
        super().__init__()
        self.clip, self.ahead = clip, 0 if one_way else clip
        self.keys = nn.Parameter(torch.empty(clip + self.ahead + 1, width))
        self.vectors = nn.Parameter(torch.empty(clip + self.ahead + 1, width))
        nn.init.xavier_uniform_(self.keys)
        nn.init.xavier_uniform_(self.vectors)

    def relation(self, place: Int[Tensor, "_ T"], keys: Int[Tensor, "_ S"]) -> Relation:
        """Find the distances."""
        row = distance(place, keys).clamp(-self.clip, self.ahead) + self.clip
        return ShawRelation(self.keys, self.vectors, row[:, None])


class Shaw(Positions):
    """Vectors of distances in every layer."""

    def __init__(self, width: int, clip: int, one_way: bool) -> None:
        super().__init__()
        self.width, self.clip, self.one_way = width, clip, one_way

    def in_heads(self) -> InHeads:
        """Make what one layer needs."""
        return ShawInHeads(self.width, self.clip, self.one_way)


class ShawBlueprint(PositionsBlueprint):
    """Vectors learned for each distance, added to keys and values in every layer (Shaw 2018)."""

    kind: Literal["shaw"] = "shaw"
    clip: int = Field(16, ge=1)
    """the greatest distance that has a vector of its own"""

    def build(self, stack: Stack) -> Positions:
        """Make them."""
        return Shaw(stack.width // stack.heads, self.clip, stack.one_way)


@dataclass(frozen=True)
class TransformerXlRelation(Relation):
    """The angles of queries and keys, of which sinusoids of their distances are made.

    sin(i - j) and cos(i - j) are sums of products of sines and cosines of i and of j. So mapped
    queries are turned by their places and meet the sinusoids of the keys' places: no distance needs
    a vector of its own, however the keys lie.
    """

    layer: TransformerXlInHeads
    place: Float[Tensor, "_ T F"]
    keys: Float[Tensor, "1 S F"]

    def scores(
        self, query: Float[Tensor, "N H T d"], keys: Float[Tensor, "N G S d"]
    ) -> Float[Tensor, "N H T S"]:
        """Add what the paper (3.3) calls b, c and d; its a is the product of query and key."""
        layer, scale = self.layer, query.shape[3] ** -0.5
        left, right = torch.matmul(query + layer.place_bias * scale, layer.maps).chunk(2, -1)
        sine, cosine = (x[:, None].to(left.dtype) for x in (self.place.sin(), self.place.cos()))
        turned = torch.cat([right * sine - left * cosine, left * sine + right * cosine], -1)
        waves = torch.cat([self.keys.sin(), self.keys.cos()], -1).to(left.dtype)
        bias = (layer.content_bias * scale).to(keys.dtype).expand(len(keys), -1, -1, -1)
        known = grouped_product(bias, keys.transpose(2, 3))  # the same for all queries
        return torch.matmul(turned, waves[:, None].transpose(2, 3)) + known


class TransformerXlInHeads(InHeads):
    """Maps of the sinusoids of distances, and the two biases that stand in for a query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        deep = width // heads
        self.register_buffer("frequency", frequencies(width, width // 2), persistent=False)
        self.frequency: Tensor
        self.maps = nn.Parameter(torch.empty(heads, deep, width))
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, deep))  # u
        self.place_bias = nn.Parameter(torch.zeros(heads, 1, deep))  # v
        nn.init.xavier_uniform_(self.maps.view(width, width))

    def relation(self, place: Int[Tensor, "_ T"], keys: Int[Tensor, "1 S"]) -> Relation:
        """Compute the angles."""
        here, there = (x[..., None] * self.frequency for x in (place, keys))
        return TransformerXlRelation(self, here, there)


class TransformerXl(Positions):
    """Sinusoids of distances in every layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads

    def in_heads(self) -> InHeads:
        """Make what one layer needs."""
        return TransformerXlInHeads(self.width, self.heads)


class TransformerXlBlueprint(PositionsBlueprint):
    """Sinusoids of distances, mapped and scored in every layer beside its keys (Dai 2019)."""

    kind: Literal["transformer_xl"] = "transformer_xl"

    def build(self, stack: Stack) -> Positions:
        """Make them."""
        return TransformerXl(stack.width, stack.heads)


class Buckets(Positions):
    """A score learned for each head and range of distances, the same in all layers."""

    def __init__(self, stack: Stack, count: int, farthest: int) -> None:
        super().__init__()
        self.farthest = farthest
        table = [
            bucket(step, count, farthest, stack.one_way) for step in range(-farthest, farthest + 1)
        ]
        self.register_buffer("bucket_of", torch.tensor(table), persistent=False)
        self.bucket_of: Tensor
        self.scores = nn.Embedding(count, stack.heads)
        nn.init.normal_(self.scores.weight, std=stack.width**-0.5)

    def bias(
        self,
        hidden: Float[Tensor, "_ 1 _ S"] | None,
        place: Int[Tensor, "_ T"],
        keys: Int[Tensor, "_ S"],
    ) -> Float[Tensor, "_ H T S"]:
        """Look the scores of all distances up."""
        step = distance(place, keys).clamp(-self.farthest, self.farthest) + self.farthest
        scores: Tensor = self.scores(self.bucket_of[step]).permute(0, 3, 1, 2)
        return scores if hidden is None else scores + hidden


class BucketsBlueprint(PositionsBlueprint):
    """A score learned for each head and range of distances, one for all layers (Raffel 2020)."""

    kind: Literal["t5"] = "t5"
    buckets: int = Field(32, ge=4, multiple_of=4)
    """number of ranges; half of them are single distances, the others widen with the distance"""
    farthest: int = Field(128, ge=2)
    """the distance from which on all are one range"""

    @model_validator(mode="after")
    def _check(self) -> BucketsBlueprint:
        if self.farthest <= self.buckets // 2:
            raise ValueError(
                f"farthest {self.farthest} is within the {self.buckets // 2} distances that have "
                "ranges of their own; raise farthest"
            )
        return self

    def build(self, stack: Stack) -> Positions:
        """Make them."""
        return Buckets(stack, self.buckets, self.farthest)


class Alibi(Positions):
    """A penalty on the scores that grows with the distance, faster in some heads than in others."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor(slopes(heads)), persistent=False)
        self.slopes: Tensor

    def bias(
        self,
        hidden: Float[Tensor, "_ 1 _ S"] | None,
        place: Int[Tensor, "_ T"],
        keys: Int[Tensor, "_ S"],
    ) -> Float[Tensor, "_ H T S"]:
        """Multiply distances with slopes."""
        penalty = distance(place, keys).abs()[:, None] * -self.slopes[:, None, None]
        return penalty if hidden is None else penalty + hidden


class AlibiBlueprint(PositionsBlueprint):
    """A fixed penalty on distance (Press 2022), in an encoder the same in both directions."""

    kind: Literal["alibi"] = "alibi"

    def build(self, stack: Stack) -> Positions:
        """Make them."""
        return Alibi(stack.heads)


def distance(place: Int[Tensor, "_ T"], keys: Int[Tensor, "_ S"]) -> Int[Tensor, "_ T S"]:
    """Return how far each key stands behind each query; negative: before it."""
    return keys[:, None] - place[:, :, None]


def bucket(step: int, count: int, farthest: int, one_way: bool) -> int:
    """Return the range of a distance (key minus query) among ``count`` (Raffel 2020).

    One way, all distances ahead are the range 0; both ways, each direction has half the ranges.
    """
    if one_way:
        first, step = 0, max(0, -step)
    else:
        count //= 2
        first, step = (count if step > 0 else 0), abs(step)
    single = count // 2
    if step < single:
        return first + step
    wide = math.log(step / single) / math.log(farthest / single) * (count - single)
    # rounding must not put the first distance of a range into the range before it
    return first + min(single + int(wide + 1e-9), count - 1)


def slopes(heads: int) -> list[float]:
    """Return the slope of each head (Press 2022): 2^(-8/H), 2^(-16/H), ... for a power of two.

    Other numbers of heads take those of the power of two below, then every other one of that above.
    """
    below = 2 ** int(math.log2(heads))
    exact = [2 ** (-8 * (head + 1) / below) for head in range(below)]
    return exact + [2 ** (-4 * (head + 1) / below) for head in range(0, 2 * (heads - below), 2)]
