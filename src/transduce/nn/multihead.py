"""Multi-head attention (Vaswani 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.nn.cache import KV, CrossKV, own
from transduce.nn.layers import projection
from transduce.nn.positions import InHeads, Relation
from transduce.nn.ragged import Ragged
from transduce.nn.similarity import Similarity
from transduce.nn.tap import Tap
from transduce.sequences import positions
from transduce.tree import map_leaves


@dataclass(frozen=True)
class Block:
    """Some positions, which of the keys they look at, and what hides some of these."""

    queries: slice
    keys: slice | Int[Tensor, "S"]
    bias: Float[Tensor, "_ _ _ S"] | None
    remembered: int = 0  # so many first keys pass no gradient to the states that they are made of
    # what the bias says and nothing more, for kernels that need no bias
    ragged: Ragged | None = None  # it hides padding
    causal: bool = False  # it hides later positions

    def pick(
        self, x: Float[Tensor, "N H P d"], still: Float[Tensor, "N H P d"]
    ) -> Float[Tensor, "N H S d"]:
        """Return the keys (or values) that it looks at; of ``still`` those that are remembered."""
        near, first = x[:, :, self.keys], self.remembered
        if still is x or first == 0:
            return near
        return torch.cat([still[:, :, self.keys][:, :, :first], near[:, :, first:]], 2)


def everything(
    bias: Float[Tensor, "_ _ _ S"] | None, ragged: Ragged | None = None, causal: bool = False
) -> list[Block]:
    """Let all positions look at all keys that ``bias`` does not hide."""
    return [Block(slice(None), slice(None), bias, ragged=ragged, causal=causal)]


def remembering(blocks: Sequence[Block]) -> bool:
    """Return whether keys of the same states are needed with gradient and without."""
    return torch.is_grad_enabled() and any(block.remembered for block in blocks)


class MultiHead(nn.Module):
    """Attention in ``heads`` subspaces at once.

    Fewer ``key_value_heads`` make groups of heads that share keys and values (Ainslie 2023; one for
    all: Shazeer 2019), so that caches are smaller by as much.

    On a CPU it is plain matrix products: torch's fused kernel has a backward pass two to five
    times slower in bf16 at the lengths of sentences. Elsewhere the fused kernel runs, except when
    somebody watches the weights or distances have vectors; where it need not compute padding, it
    does not.
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
        ragged: Ragged | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "B T D"]:
        """Attend and merge the heads; ``ragged`` or ``causal`` say the same as ``bias``."""
        if fuses(query) and relation is None and not self.weights.watched:
            if ragged is not None and ragged.fits(query, keys, values):
                mixed = ragged.attend(query, keys, values)
            else:
                mask = None if bias is None or causal else bias.to(query.dtype)
                mixed = F.scaled_dot_product_attention(
                    query,
                    keys,
                    values,
                    mask,
                    is_causal=causal,
                    enable_gqa=self.shared < self.width,
                )
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


def fuses(x: Tensor) -> bool:
    """Return whether torch's fused kernel is the faster one where ``x`` is."""
    return x.is_cuda


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
        place, near = past.place(length, x.shape[1]), past.near(length, x.shape[1])
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
            given = query[:, :, asked], keys, values, block.bias, relation
            found.append(self.attend(*given, block.ragged, block.causal))
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
        ragged: Ragged | None = None,
    ) -> Float[Tensor, "N T D"]:
        """Let the N = B * K rows meet the B sources without copying these."""
        query = self.split(self.query(x).reshape(len(source.keys), -1, self.width))
        query = self.similarity.query(query)
        found = self.attend(query, source.keys, source.values, bias, ragged=ragged)
        return found.reshape(x.shape)
