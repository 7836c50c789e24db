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
from transduce.tree import Joins, PerSource


@dataclass(frozen=True)
class GrowingKV(Joins):
    """Keys and values of all tokens read so far; extending makes a new one (persistent).

    Rows that have read different numbers of tokens end together: the shorter have room in front.
    """

    keys: Float[Tensor, "N H P d"]
    values: Float[Tensor, "N H P d"]
    ragged: bool = False  # whether any row has room in front

    def append(
        self, keys: Float[Tensor, "N H T d"], values: Float[Tensor, "N H T d"], _: Int[Tensor, "N"]
    ) -> GrowingKV:
        """Return the cache with T more tokens."""
        if self.keys.shape[2] == 0:
            keys, values = own(keys, values)
        else:
            keys = torch.cat([self.keys, keys], 2)
            values = torch.cat([self.values, values], 2)
        return GrowingKV(keys, values, self.ragged)

    def join(self, others: Sequence[GrowingKV]) -> GrowingKV:
        """Return the rows of all, with room in front of the shorter."""
        parts = [self, *others]
        longest = max(part.keys.shape[2] for part in parts)
        ragged = any(part.ragged or part.keys.shape[2] < longest for part in parts)

        def stack(columns: list[Tensor]) -> Tensor:
            return torch.cat([F.pad(x, (0, 0, longest - x.shape[2], 0)) for x in columns])

        keys, values = ([getattr(part, name) for part in parts] for name in ("keys", "values"))
        return GrowingKV(stack(keys), stack(values), ragged)

    def settle(self, length: Int[Tensor, "N"]) -> GrowingKV:
        """Return the cache without room that no row of these lengths needs."""
        if not self.ragged:
            return self
        shortest, longest = int(length.min()), int(length.max())
        room = self.keys.shape[2] - longest
        return GrowingKV(self.keys[:, :, room:], self.values[:, :, room:], shortest < longest)

    def place(self, length: Int[Tensor, "N"], tokens: int) -> Int[Tensor, "_ T"]:
        """Return where the next tokens stand."""
        past = self.keys.shape[2]
        if self.ragged:
            return length[:, None] + positions(tokens, length.device)
        return positions(past + tokens, length.device)[:, past:]

    def places(self, length: Int[Tensor, "N"], tokens: int) -> Int[Tensor, "_ P"]:
        """Return where all keys stand that the next tokens look at; room is before the first."""
        past = self.keys.shape[2]
        slots = positions(past + tokens, length.device)
        return slots - (past - length[:, None]) if self.ragged else slots

    def causal(
        self, length: Int[Tensor, "N"], tokens: int, dtype: torch.dtype
    ) -> Float[Tensor, "_ 1 T P"] | None:
        """Return the bias that hides later tokens, and room; None: all are seen."""
        if tokens == 1 and not self.ragged:
            return None
        place, keys = self.place(length, tokens)[:, :, None], self.places(length, tokens)[:, None]
        return hide((keys > place) | (keys < 0), dtype)[:, None]


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

    def settle(self, _: Int[Tensor, "N"]) -> FixedKV:
        """Return the cache: its room is fixed."""
        return self

    def places(self, length: Int[Tensor, "N"], _: int) -> Int[Tensor, "1 C"]:
        """Return where all keys stand that the next tokens look at, written or not."""
        return positions(self.keys.shape[2], length.device)

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
    """Some positions, the places of the keys that they look at (None: all), and what hides keys."""

    queries: slice
    keys: Int[Tensor, "S"] | None
    bias: Float[Tensor, "_ _ _ S"] | None


def everything(bias: Float[Tensor, "_ _ _ S"]) -> list[Block]:
    """Let all positions look at all keys that ``bias`` does not hide."""
    return [Block(slice(None), None, bias)]


def own(*views: Tensor) -> tuple[Tensor, ...]:
    """Return copies laid out for matrix products: no two tensors of a state may share memory."""
    return tuple(view.clone(memory_format=torch.contiguous_format) for view in views)


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
                scores = scores + relation.scores(query)
            if bias is not None:
                scores = scores + bias.to(scores.dtype)
            weights = self.weights(scores.softmax(-1, dtype=scores.dtype))
            mixed = grouped_product(weights, values)
            if relation is not None:
                mixed = mixed + relation.values(weights)
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

    def forward(self, x: Float[Tensor, "B S D"], blocks: Sequence[Block]) -> Float[Tensor, "B S D"]:
        """Look both ways (encoder), block by block."""
        place, inside = positions(x.shape[1], x.device), self.in_heads
        query, keys, values = self.project(x)
        if inside is not None:
            query, keys = inside.turn(query, place), inside.turn(keys, place)
        seen = []
        for block in blocks:
            near = keys, values, place
            if block.keys is not None:
                near = keys[:, :, block.keys], values[:, :, block.keys], block.keys[None]
            asked = block.queries
            relation = None if inside is None else inside.relation(place[:, asked], near[2])
            seen.append(self.attend(query[:, :, asked], near[0], near[1], block.bias, relation))
        return seen[0] if len(seen) == 1 else torch.cat(seen, 1)

    def extend(
        self,
        x: Float[Tensor, "N T D"],
        past: KV,
        length: Int[Tensor, "N"],
        bias: Float[Tensor, "_ _ T P"] | None,
    ) -> tuple[Float[Tensor, "N T D"], KV]:
        """Look back at all tokens read so far and at these (decoder)."""
        query, keys, values = self.project(x)
        relation, inside = None, self.in_heads
        if inside is not None:
            place = past.place(length, x.shape[1])
            query, keys = inside.turn(query, place), inside.turn(keys, place)
            relation = inside.relation(place, past.places(length, x.shape[1]))
        past = past.append(keys, values, length)
        return self.attend(query, past.keys, past.values, bias, relation), past


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
