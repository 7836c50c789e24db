"""Attention over the source with one score for each position: content, place, or both networks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transduce.nn.attend.connection import (
    Connection,
    ConnectionBlueprint,
    Prepared,
    Trail,
    fold,
)
from transduce.nn.attend.focus import (
    Focus,
    GlobalWindowBlueprint,
    Normaliser,
    WindowBlueprint,
)
from transduce.problem import Problem


class Attention(Connection):
    """An average of the source's states; what differs is the score of a query and a key."""

    def __init__(self, focus: Focus | None = None) -> None:
        super().__init__()
        self.focus = focus or Focus()

    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Compute the keys."""
        return Prepared(states, mask, self.keys(states))

    def begin(self, source: Prepared, rows: int) -> Trail:
        """Return what has to be remembered of the positions before."""
        return self.focus.begin(rows, source.mask.device)

    def keys(self, states: Float[Tensor, "B S D"]) -> Float[Tensor, "B S E"] | None:
        """Project the states once; None where the states themselves are the keys."""
        return None

    @abstractmethod
    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Rate every source position for every query."""

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared, trail: Trail
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N T S"], Trail]:
        """Average the states by attention."""
        rows, length = query.shape[:2]
        keys = source.values if source.keys is None else source.keys
        scores = self.score(fold(query, len(keys)), keys)
        weights, trail = self.focus(scores, query, source.mask, trail)
        context = torch.bmm(weights, source.values.to(weights.dtype))
        return context.reshape(rows, length, -1), weights.reshape(rows, length, -1), trail


class AttentionBlueprint(ConnectionBlueprint):
    """What all attentions have in common."""

    normaliser: Normaliser = "softmax"
    """makes weights of scores; the sparse ones give exactly zero to most positions"""
    window: WindowBlueprint = GlobalWindowBlueprint()
    """what part of the source is seen"""

    def focus(self, query: int) -> Focus:
        """Make what turns scores into weights."""
        return Focus(self.normaliser, self.window.build(query))


class DotAttention(Attention):
    """score(s, h) = s . h (Luong 2015)."""

    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Multiply."""
        return torch.bmm(query, keys.transpose(1, 2))


def check_equal(query: int, memory: int) -> None:
    """Refuse a product of vectors of unequal width.

    Raises:
        Problem: the widths differ.
    """
    if query != memory:
        raise Problem(
            f"dot attention needs an encoder as wide as the decoder ({memory} is not {query}); "
            "make them equal or use 'general'",
            "model.decoder.connection",
        )


class DotAttentionBlueprint(AttentionBlueprint):
    """Score s . h; encoder and decoder must be of equal width."""

    kind: Literal["dot"] = "dot"

    def build(self, query: int, memory: int) -> Connection:
        """Make it.

        Raises:
            Problem: the widths differ.
        """
        check_equal(query, memory)
        return DotAttention(self.focus(query))


class ScaledDotAttention(DotAttention):
    """score(s, h) = s . h / sqrt(D) (Vaswani 2017)."""

    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Multiply and scale."""
        return super().score(query * query.shape[-1] ** -0.5, keys)


class ScaledDotAttentionBlueprint(AttentionBlueprint):
    """Score s . h / sqrt(D); encoder and decoder must be of equal width."""

    kind: Literal["scaled_dot"] = "scaled_dot"

    def build(self, query: int, memory: int) -> Connection:
        """Make it.

        Raises:
            Problem: the widths differ.
        """
        check_equal(query, memory)
        return ScaledDotAttention(self.focus(query))


class GeneralAttention(DotAttention):
    """score(s, h) = s . W h (Luong 2015)."""

    def __init__(self, query: int, memory: int, focus: Focus | None = None) -> None:
        super().__init__(focus)
        self.key = nn.Linear(memory, query, bias=False)

    def keys(self, states: Float[Tensor, "B S D"]) -> Float[Tensor, "B S E"]:
        """Return W h."""
        keys: Tensor = self.key(states)
        return keys


class GeneralAttentionBlueprint(AttentionBlueprint):
    """Score s . W h."""

    kind: Literal["general"] = "general"

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return GeneralAttention(query, memory, self.focus(query))


class AdditiveAttention(Attention):
    """score(s, h) = v . tanh(U s + W h) (Bahdanau 2015).

    The "concat" score v . tanh(W [s; h]) of Luong 2015 is the same: W [s; h] = U s + W' h.
    """

    LIMIT = 1 << 24  # elements of the (B, Q, S, E) table that may be alive at a time

    def __init__(self, query: int, memory: int, width: int, focus: Focus | None = None) -> None:
        super().__init__(focus)
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


class AdditiveAttentionBlueprint(AttentionBlueprint):
    """Score v . tanh(U s + W h)."""

    kind: Literal["additive"] = "additive"
    width: int | None = Field(None, ge=1)
    """units of the hidden layer; as wide as the decoder if left out"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return AdditiveAttention(query, memory, self.width or query, self.focus(query))


class PerceptronAttention(AdditiveAttention):
    """score(s, h) = v . f(tanh(U s + W h)), f being further layers z -> tanh(A z + b)."""

    def __init__(
        self, query: int, memory: int, width: int, layers: int, focus: Focus | None = None
    ) -> None:
        super().__init__(query, memory, width, focus)
        self.deeper = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))

    def _energies(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        hidden = torch.tanh(query[:, :, None] + keys[:, None])
        for layer in self.deeper:
            hidden = torch.tanh(layer(hidden))
        energies: Tensor = self.energy(hidden)
        return energies.squeeze(-1)


class PerceptronAttentionBlueprint(AttentionBlueprint):
    """A score by a network of several layers: additive attention made deeper."""

    kind: Literal["mlp"] = "mlp"
    width: int | None = Field(None, ge=1)
    """units of each hidden layer; as wide as the decoder if left out"""
    layers: int = Field(2, ge=2)
    """hidden layers (with one it would be additive)"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        width = self.width or query
        return PerceptronAttention(query, memory, width, self.layers, self.focus(query))


class LocationAttention(Attention):
    """score(s) = W s, one row of W for each place in the source (Luong 2015, "location")."""

    def __init__(self, query: int, longest: int, focus: Focus | None = None) -> None:
        super().__init__(focus)
        self.longest = longest
        self.place = nn.Linear(query, longest, bias=False)

    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Keep the states.

        Raises:
            Problem: a source is longer than there are places.
        """
        if mask.shape[1] > self.longest and mask[:, self.longest].any():
            raise Problem(
                f"a source has {int(mask.sum(1).max())} positions and location attention was made "
                f"for {self.longest}; set data.limits.source, or a larger number here before "
                "training",
                "model.decoder.connection.longest",
            )
        return Prepared(states, mask)

    def score(
        self, query: Float[Tensor, "B Q E"], keys: Float[Tensor, "B S E"]
    ) -> Float[Tensor, "B Q S"]:
        """Rate the places, whatever stands there; what is longer is padding."""
        scores: Tensor = self.place(query)
        return F.pad(scores, (0, keys.shape[1] - self.longest))


class LocationAttentionBlueprint(AttentionBlueprint):
    """A score for each place, whatever stands there, for sources of bounded length."""

    kind: Literal["location"] = "location"
    longest: int = Field(200, ge=1)
    """positions of the longest source; longer ones are refused"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return LocationAttention(query, self.longest, self.focus(query))
