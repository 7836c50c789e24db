"""Multi-head attention (Vaswani 2017) and the caches that let it read a few tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transduce.nn.layers import projection
from transduce.nn.positions import InHeads, Relation
from transduce.nn.similarity import Similarity
from transduce.nn.tap import Tap
from transduce.sequences import positions
from transduce.tree import PerSource, map_leaves


@dataclass(frozen=True)
class GrowingKV:
    """Keys and values of the tokens read so far; extending makes a new one (persistent)."""

    keys: Float[Tensor, "N H P d"]
    values: Float[Tensor, "N H P d"]
    first: int = 0  # place of the first of them: older ones are forgotten

    def append(
        self, keys: Float[Tensor, "N H T d"], values: Float[Tensor, "N H T d"], _: Int[Tensor, "N"]
    ) -> GrowingKV:
        """Return the cache with T more tokens."""
        if self.keys.shape[2] == 0:
            return GrowingKV(*own(keys, values), self.first)
        joined = torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
        return GrowingKV(*joined, self.first)

    def forget(self, oldest: int) -> GrowingKV:
        """Return the cache without what stands before the place ``oldest``."""
        if oldest <= self.first:
            return self
        kept = slice(oldest - self.first, None)
        return GrowingKV(*own(self.keys[:, :, kept], self.values[:, :, kept]), oldest)

    def place(self, _: Int[Tensor, "N"], tokens: int) -> Int[Tensor, "1 T"]:
        """Return where the next tokens stand: all rows have read as many."""
        return self.near(tokens)[:, self.keys.shape[2] :]

    def near(self, tokens: int) -> Int[Tensor, "1 P"]:
        """Return where the keys stand that the next tokens look at, hidden ones included."""
        return positions(self.slots(tokens), self.keys.device)[:, self.first :]

    def slots(self, tokens: int) -> int:
        """Return the number of places, from 0 on, that the next tokens make full."""
        return self.first + self.keys.shape[2] + tokens

    def causal(
        self, _: Int[Tensor, "N"], tokens: int, dtype: torch.dtype
    ) -> Float[Tensor, "1 1 T P"] | None:
        """Return the bias that hides later tokens from each next one; None: all are seen."""
        if tokens == 1:
            return None
        past, device = self.keys.shape[2], self.keys.device
        ahead = torch.ones(tokens, past + tokens, dtype=torch.bool, device=device).triu(past + 1)
        return hide(ahead, dtype)[None, None]


@dataclass(frozen=True)
class FixedKV:
    """Buffers of fixed capacity, written in place: no shape changes, each state serves once."""

    keys: Float[Tensor, "N H C d"]
    values: Float[Tensor, "N H C d"]

    def append(
        self,
        keys: Float[Tensor, "N H T d"],
        values: Float[Tensor, "N H T d"],
        length: Int[Tensor, "N"],
    ) -> FixedKV:
        """Write T more tokens behind the first ``length``."""
        place = self.place(length, keys.shape[2])
        index = place[:, None, :, None].expand_as(keys)
        return FixedKV(
            self.keys.scatter_(2, index, keys.to(self.keys.dtype)),
            self.values.scatter_(2, index, values.to(self.values.dtype)),
        )

    def place(self, length: Int[Tensor, "N"], tokens: int) -> Int[Tensor, "N T"]:
        """Return where the next tokens stand, behind the first ``length`` of each row."""
        return length[:, None] + positions(tokens, length.device)

    def forget(self, _: int) -> FixedKV:
        """Return the cache as it is: its capacity bounds it already."""
        return self

    def near(self, _: int) -> Int[Tensor, "1 C"]:
        """Return where the keys stand that the next tokens look at, hidden ones included."""
        return positions(self.keys.shape[2], self.keys.device)

    def slots(self, _: int) -> int:
        """Return the number of places that there can be."""
        return self.keys.shape[2]

    def causal(
        self, length: Int[Tensor, "N"], tokens: int, dtype: torch.dtype
    ) -> Float[Tensor, "N 1 T C"]:
        """Return the bias that hides later tokens and what is not written yet."""
        place = self.place(length, tokens)
        ahead = torch.arange(self.keys.shape[2], device=length.device) > place[..., None]
        return hide(ahead, dtype)[:, None]


KV = GrowingKV | FixedKV


@dataclass(frozen=True)
class CrossKV(PerSource):
    """Keys and values of the source, computed once and shared by all its hypotheses."""

    keys: Float[Tensor, "B H S d"]
    values: Float[Tensor, "B H S d"]


@dataclass(frozen=True)
class Block:
    """Some positions, which of the keys they look at, and what hides some of these."""

    queries: slice
    keys: slice | Int[Tensor, "S"]
    bias: Float[Tensor, "_ _ _ S"] | None
    remembered: int = 0  # so many first keys pass no gradient to the states that they are made of

    def pick(
        self, x: Float[Tensor, "N H P d"], still: Float[Tensor, "N H P d"]
    ) -> Float[Tensor, "N H S d"]:
        """Return the keys (or values) that it looks at; of ``still`` those that are remembered."""
        near, first = x[:, :, self.keys], self.remembered
        if still is x or first == 0:
            return near
        return torch.cat([still[:, :, self.keys][:, :, :first], near[:, :, first:]], 2)


def everything(bias: Float[Tensor, "_ _ _ S"] | None) -> list[Block]:
    """Let all positions look at all keys that ``bias`` does not hide."""
    return [Block(slice(None), slice(None), bias)]


def remembering(blocks: Sequence[Block]) -> bool:
    """Return whether keys of the same states are needed with gradient and without."""
    return torch.is_grad_enabled() and any(block.remembered for block in blocks)


def own(keys: Float[Tensor, "N H S d"], values: Float[Tensor, "N H S d"]) -> tuple[Tensor, Tensor]:
    """Return copies laid out for matrix products: no two tensors of a state may share memory."""
    layout = torch.contiguous_format
    return keys.clone(memory_format=layout), values.clone(memory_format=layout)


def padding_bias(mask: Bool[Tensor, "B S"], dtype: torch.dtype) -> Float[Tensor, "B 1 1 S"]:
    """Return what is added to the scores so that padding gets no weight."""
    return hide(~mask, dtype)[:, None, None]


def hide(hidden: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """Return 0 where a position is seen and, where not, too little for any weight."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -1e9)


class MultiHead(nn.Module):
    """Attention in ``heads`` subspaces at once.

    Fewer ``key_value_heads`` make groups of heads that share keys and values (Ainslie 2023; one for
    all: Shazeer 2019), so that caches are smaller by as much.

    On a CPU it is plain matrix products: torch's fused kernel has a backward pass two to five
    times slower in bf16 at the lengths of sentences. Elsewhere the fused kernel runs, except when
    somebody watches the weights or distances have vectors.
    """

    shows = "attention"  # what its tap is called

    def __init__(
        self,
        width: int,
        heads: int,
        key_value_heads: int | None = None,
        similarity: Similarity | None = None,
    ) -> None:
        super().__init__()
        self.width, self.deep = width, width // heads
        self.shared = (key_value_heads or heads) * self.deep  # width of all keys
        self.similarity = similarity or Similarity()
        self.out = projection(width, width)
        self.weights = Tap(self.shows)

    def split(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T d"]:
        """Separate the heads."""
        return x.view(*x.shape[:2], -1, self.deep).transpose(1, 2)

    def attend(
        self,
        query: Float[Tensor, "B H T d"],
        keys: Float[Tensor, "B G S d"],
        values: Float[Tensor, "B G S d"],
        bias: Float[Tensor, "_ _ _ S"] | None,
        relation: Relation | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend and merge the heads."""
        if query.is_cuda and relation is None and not self.weights.watched:
            mask = None if bias is None else bias.to(query.dtype)
            grouped = self.shared < self.width
            mixed = F.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=grouped)
        else:
            query = query * query.shape[-1] ** -0.5
            scores = grouped_product(query, keys.transpose(2, 3))
            if relation is not None:
                scores = scores + relation.scores(query, keys)
            if bias is not None:
                scores = scores + bias.to(scores.dtype)
            weights = self.weights(scores.softmax(-1, dtype=scores.dtype))
            mixed = grouped_product(weights, values)
            if relation is not None:
                mixed = relation.values(mixed, weights)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def grouped_product(
    x: Float[Tensor, "B H T a"], y: Float[Tensor, "B G a b"]
) -> Float[Tensor, "B H T b"]:
    """Multiply, H / G adjacent heads with the same matrix, which is not copied for them."""
    if x.shape[1] == y.shape[1]:
        return torch.matmul(x, y)
    folded = x.reshape(len(x), y.shape[1], -1, x.shape[3])
    return torch.matmul(folded, y).view(*x.shape[:3], -1)


class SelfAttention(MultiHead):
    """Positions look at one another."""

    shows = "self-attention"

    def __init__(
        self,
        width: int,
        heads: int,
        key_value_heads: int | None = None,
        similarity: Similarity | None = None,
        in_heads: InHeads | None = None,
    ) -> None:
        super().__init__(width, heads, key_value_heads, similarity)
        self.query_key_value = projection(width, width + 2 * self.shared)
        self.in_heads = in_heads

    def project(self, x: Float[Tensor, "B S D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (B, heads, S, d), by one matrix product."""
        sizes = (self.width, self.shared, self.shared)
        query, keys, values = map(self.split, self.query_key_value(x).split(sizes, -1))
        return self.similarity.query(query), self.similarity.keys(keys), values

    def read(
        self, x: Float[Tensor, "B S D"], place: Int[Tensor, "_ S"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, marked with their places where positions do that."""
        query, keys, values = self.project(x)
        if self.in_heads is not None:
            query, keys = self.in_heads.turn(query, place), self.in_heads.turn(keys, place)
        return query, keys, values

    def forward(self, x: Float[Tensor, "B S D"], blocks: Sequence[Block]) -> Float[Tensor, "B S D"]:
        """Look both ways (encoder), block by block."""
        place = positions(x.shape[1], x.device)
        query, *seen = self.read(x, place)
        still = self.read(x.detach(), place)[1:] if remembering(blocks) else seen
        return self.look(query, seen, still, blocks, place, place)

    def extend(
        self,
        x: Float[Tensor, "N T D"],
        past: KV,
        length: Int[Tensor, "N"],
        blocks: Sequence[Block],
    ) -> tuple[Float[Tensor, "N T D"], KV]:
        """Look back at tokens read before and at these (decoder), block by block."""
        place, near = past.place(length, x.shape[1]), past.near(x.shape[1])
        query, keys, values = self.read(x, place)
        after = past.append(keys, values, length)
        seen = still = after.keys, after.values
        if remembering(blocks):
            before = map_leaves(past, lambda leaf, _: leaf.detach())
            same = before.append(*self.read(x.detach(), place)[1:], length)
            still = same.keys, same.values
        return self.look(query, seen, still, blocks, place, near), after

    def look(
        self,
        query: Float[Tensor, "N H T d"],
        seen: Sequence[Float[Tensor, "N G S d"]],
        still: Sequence[Float[Tensor, "N G S d"]],
        blocks: Sequence[Block],
        place: Int[Tensor, "_ T"],
        near: Int[Tensor, "1 S"],
    ) -> Float[Tensor, "N T D"]:
        """Attend block by block, with queries at ``place`` and keys ``near`` them.

        Keys and values, ``seen``, are equal in ``still``, where states get no gradient of them.
        """
        found = []
        for block in blocks:
            asked, relation = block.queries, None
            keys, values = map(block.pick, seen, still)
            if self.in_heads is not None:
                relation = self.in_heads.relation(place[:, asked], near[:, block.keys])
            found.append(self.attend(query[:, :, asked], keys, values, block.bias, relation))
        return found[0] if len(found) == 1 else torch.cat(found, 1)


class CrossAttention(MultiHead):
    """Target positions look at the source."""

    shows = "source attention"

    def __init__(
        self,
        width: int,
        heads: int,
        memory: int,
        key_value_heads: int | None = None,
        similarity: Similarity | None = None,
    ) -> None:
        super().__init__(width, heads, key_value_heads, similarity)
        self.query = projection(width, width)
        self.key_value = projection(memory, 2 * self.shared)

    def prepare(self, states: Float[Tensor, "B S D"]) -> CrossKV:
        """Project the source once."""
        keys, values = map(self.split, self.key_value(states).chunk(2, -1))
        return CrossKV(*own(self.similarity.keys(keys), values))

    def forward(
        self,
        x: Float[Tensor, "N T D"],
        source: CrossKV,
        bias: Float[Tensor, "B 1 1 S"],
    ) -> Float[Tensor, "N T D"]:
        """Let the N = B * K rows meet the B sources without copying these."""
        query = self.split(self.query(x).reshape(len(source.keys), -1, self.width))
        query = self.similarity.query(query)
        return self.attend(query, source.keys, source.values, bias).reshape(x.shape)
