"""Attentions that look at where they have looked: their positions wait for one another.

The decoder's own steps need not wait for them; only the scores and weights are made one by one.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transduce.nn.attend.connection import Connection, Prepared, Trail, fold
from transduce.nn.attend.focus import Focus
from transduce.nn.attend.scores import AdditiveAttention, AttentionBlueprint
from transduce.nn.recompute import recomputable


class RememberingAttention(AdditiveAttention):
    """score(s, h) = v . tanh(U s + W h + r), r made of the weights of the positions before."""

    def begin(self, source: Prepared, rows: int) -> Trail:
        """Return that it has looked nowhere."""
        exact = torch.promote_types(source.values.dtype, torch.float32)
        past = source.values.new_zeros(rows, source.values.shape[1], dtype=exact)
        return self.focus.begin(rows, past.device)._replace(past=past)

    @abstractmethod
    def recall(self, past: Float[Tensor, "N S"]) -> Float[Tensor, "N S E"]:
        """Return what the past adds for each source position."""

    @abstractmethod
    def remember(
        self, past: Float[Tensor, "N S"], weights: Float[Tensor, "N S"]
    ) -> Float[Tensor, "N S"]:
        """Return the past once a position more belongs to it."""

    def rate(
        self, wish: Float[Tensor, "N E"], keys: Float[Tensor, "B S E"], past: Float[Tensor, "N S"]
    ) -> Float[Tensor, "B K S"]:
        """Rate every source position for one target position."""
        sources, size, width = keys.shape
        recalled = self.recall(past).view(sources, -1, size, width)
        hidden = torch.tanh(wish.view(sources, -1, 1, width) + keys[:, None] + recalled)
        scores: Tensor = self.energy(hidden)
        return scores.squeeze(-1)

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared, trail: Trail
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N T S"], Trail]:
        """Average the states by attention, one position after the other."""
        rows, (sources, size) = len(query), source.mask.shape
        keys, projected = source.keys, self.query(query)
        assert keys is not None
        found = []
        for asked, wish in zip(query.unbind(1), projected.unbind(1), strict=True):
            past = trail.past
            assert past is not None
            scores = recomputable(self.rate)(wish, keys, past)
            weights, trail = self.focus(scores, asked[:, None], source.mask, trail)
            weights = weights.reshape(rows, size)
            trail = trail._replace(past=self.remember(past, weights))
            found.append(weights)
        every = torch.stack(found, 1)
        context = torch.bmm(fold(every, sources), source.values.to(every.dtype))
        return context.view(rows, len(found), -1), every, trail


class CoverageAttention(RememberingAttention):
    """r = c w, c being the sum of all weights that a source position got before (See 2017)."""

    def __init__(self, query: int, memory: int, width: int, focus: Focus | None = None) -> None:
        super().__init__(query, memory, width, focus)
        self.coverage = nn.Linear(1, width, bias=False)

    def recall(self, past: Float[Tensor, "N S"]) -> Float[Tensor, "N S E"]:
        """Return c w."""
        recalled: Tensor = self.coverage(past[..., None])
        return recalled

    def remember(
        self, past: Float[Tensor, "N S"], weights: Float[Tensor, "N S"]
    ) -> Float[Tensor, "N S"]:
        """Add the weights up."""
        return past + weights


class CoverageAttentionBlueprint(AttentionBlueprint):
    """The additive score, told how much each source position was looked at before."""

    kind: Literal["coverage"] = "coverage"
    width: int | None = Field(None, ge=1)
    """units of the hidden layer; as wide as the decoder if left out"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return CoverageAttention(query, memory, self.width or query, self.focus(query))


class LocationAwareAttention(RememberingAttention):
    """r = V f, f being a convolution over the weights of the position before (Chorowski 2015)."""

    def __init__(
        self,
        query: int,
        memory: int,
        width: int,
        filters: int,
        reach: int,
        focus: Focus | None = None,
    ) -> None:
        super().__init__(query, memory, width, focus)
        self.reach = reach
        self.filters = nn.Parameter(torch.empty(filters, 1, 2 * reach + 1))
        nn.init.xavier_uniform_(self.filters)
        self.feature = nn.Linear(filters, width, bias=False)

    def recall(self, past: Float[Tensor, "N S"]) -> Float[Tensor, "N S E"]:
        """Return V f."""
        features = F.conv1d(past[:, None], self.filters, padding=self.reach)
        recalled: Tensor = self.feature(features.transpose(1, 2))
        return recalled

    def remember(
        self, past: Float[Tensor, "N S"], weights: Float[Tensor, "N S"]
    ) -> Float[Tensor, "N S"]:
        """Keep the last weights alone."""
        return weights.to(past.dtype)


class LocationAwareAttentionBlueprint(AttentionBlueprint):
    """The additive score, told where the position before has looked."""

    kind: Literal["location_aware"] = "location_aware"
    width: int | None = Field(None, ge=1)
    """units of the hidden layer; as wide as the decoder if left out"""
    filters: int = Field(10, ge=1)
    """filters of the convolution over the weights before"""
    reach: int = Field(10, ge=1)
    """positions to either side that a filter sees"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        width, focus = self.width or query, self.focus(query)
        return LocationAwareAttention(query, memory, width, self.filters, self.reach, focus)
