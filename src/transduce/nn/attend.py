"""How a recurrent decoder looks at the source: by a fixed vector, or by attention.

Every kind is prepared once for each source and asked for all target positions at once. The K
hypotheses of a source (times T tokens) meet its bank as one longer query, so nothing that belongs
to a source is ever copied for a hypothesis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transduce.blueprint import Part
from transduce.problem import Problem
from transduce.tree import PerSource


def fold(x: Float[Tensor, "N T D"], sources: int) -> Float[Tensor, "B KT D"]:
    """Lay the rows of each source behind one another."""
    return x.reshape(sources, -1, x.shape[-1])


def masked_softmax(
    scores: Float[Tensor, "B Q S"], mask: Bool[Tensor, "B S"]
) -> Float[Tensor, "B Q S"]:
    """Softmax over the real source positions; padding gets exactly zero."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask[:, None], lowest).softmax(-1, dtype=scores.dtype)


@dataclass(frozen=True)
class Prepared(PerSource):
    """What a connection needs of the sources."""

    values: Float[Tensor, "B S D"]
    mask: Bool[Tensor, "B S"]
    keys: Float[Tensor, "B S E"] | None = None


class Connection(nn.Module, ABC):
    """Brings what a decoder needs of the source to each of its positions."""

    @abstractmethod
    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Do once for each source all that does not depend on the target."""

    @abstractmethod
    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N T S"] | None]:
        """Return the context for each position and, where there is attention, its weights."""


class ConnectionBlueprint(Part):
    """Slot for the connection between encoder and recurrent decoder."""

    @abstractmethod
    def build(self, query: int, memory: int) -> Connection:
        """Make it for decoder states of width ``query`` and encoder states of width ``memory``."""


class FixedContext(Connection):
    """The same vector, a summary of the whole source, at every step (Cho 2014)."""

    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Keep the summary alone."""
        return Prepared(summary[:, None], mask[:, :1])

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared
    ) -> tuple[Float[Tensor, "N T D"], None]:
        """Repeat the summary for each position."""
        rows, length = query.shape[:2]
        width = rows // len(source.values)
        context = source.values.repeat_interleave(width, 0)
        return context.expand(rows, length, context.shape[-1]), None


class FixedContextBlueprint(ConnectionBlueprint):
    """One vector for the whole source, no attention."""

    kind: Literal["fixed"] = "fixed"

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return FixedContext()


class Attention(Connection):
    """Softmax attention; what differs is the score of a query and a key."""

    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Compute the keys."""
        return Prepared(states, mask, self.keys(states))

    def keys(self, states: Float[Tensor, "B S D"]) -> Float[Tensor, "B S E"] | None:
        """Project the states once; None where the states themselves are the keys."""
        return None

    @abstractmethod
    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Rate every source position for every query."""

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N T S"]]:
        """Average the states by attention."""
        rows, length = query.shape[:2]
        keys = source.values if source.keys is None else source.keys
        scores = self.score(fold(query, len(keys)), keys)
        weights = masked_softmax(scores, source.mask)
        context = torch.bmm(weights, source.values.to(weights.dtype))
        return context.reshape(rows, length, -1), weights.reshape(rows, length, -1)


class DotAttention(Attention):
    """score(s, h) = s . h (Luong 2015)."""

    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Multiply."""
        return torch.bmm(query, keys.transpose(1, 2))


class DotAttentionBlueprint(ConnectionBlueprint):
    """Score s . h; encoder and decoder must be of equal width."""

    kind: Literal["dot"] = "dot"

    def build(self, query: int, memory: int) -> Connection:
        """Make it.

        Raises:
            Problem: the widths differ.
        """
        if query != memory:
            raise Problem(
                f"dot attention needs an encoder as wide as the decoder ({memory} is not {query}); "
                "make them equal or use 'general'",
                "model.decoder.connection",
            )
        return DotAttention()


class GeneralAttention(DotAttention):
    """score(s, h) = s . W h (Luong 2015)."""

    def __init__(self, query: int, memory: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory, query, bias=False)

    def keys(self, states: Float[Tensor, "B S D"]) -> Float[Tensor, "B S E"]:
        """Return W h."""
        keys: Tensor = self.key(states)
        return keys


class GeneralAttentionBlueprint(ConnectionBlueprint):
    """Score s . W h."""

    kind: Literal["general"] = "general"

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return GeneralAttention(query, memory)


class AdditiveAttention(Attention):
    """score(s, h) = v . tanh(U s + W h) (Bahdanau 2015)."""

    LIMIT = 1 << 24  # elements of the (B, Q, S, E) table that may be alive at a time

    def __init__(self, query: int, memory: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(query, width)
        self.key = nn.Linear(memory, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)

    def keys(self, states: Float[Tensor, "B S D"]) -> Float[Tensor, "B S E"]:
        """Return W h."""
        keys: Tensor = self.key(states)
        return keys

    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Compute the energies, some queries at a time where the table would be large."""
        projected: Tensor = self.query(query)
        size = max(1, self.LIMIT // keys.numel())
        if projected.shape[1] <= size:
            return self._energies(projected, keys)
        parts = [
            checkpoint(self._energies, part, keys, use_reentrant=False, preserve_rng_state=False)
            for part in torch.split(projected, size, 1)
        ]
        return torch.cat(parts, 1)

    def _energies(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        energies: Tensor = self.energy(torch.tanh(query[:, :, None] + keys[:, None]))
        return energies.squeeze(-1)


class AdditiveAttentionBlueprint(ConnectionBlueprint):
    """Score v . tanh(U s + W h)."""

    kind: Literal["additive"] = "additive"
    width: int | None = None
    """units of the hidden layer; as wide as the decoder if left out"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return AdditiveAttention(query, memory, self.width or query)
