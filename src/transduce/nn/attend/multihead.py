"""Several attentions at once, each in its own subspace, for recurrent decoders."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from transduce.nn.attend.connection import Connection, Prepared, Trail, fold
from transduce.nn.attend.focus import Focus
from transduce.nn.attend.scores import AttentionBlueprint
from transduce.nn.layers import projection
from transduce.problem import Problem


class MultiHeadAttention(Connection):
    """Scaled dot products in ``heads`` subspaces at once (Vaswani 2017).

    The weights that it returns are the mean over the heads.
    """

    def __init__(self, query: int, memory: int, heads: int, focus: Focus | None = None) -> None:
        super().__init__()
        self.width, self.heads = query, heads
        self.query = projection(query, query)
        self.key = projection(memory, query)
        self.value = projection(memory, query)
        self.out = projection(query, query)
        self.focus = focus or Focus()

    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Project keys and values once for each source."""
        return Prepared(self.value(states), mask, self.key(states))

    def begin(self, source: Prepared, rows: int) -> Trail:
        """Return what has to be remembered of the positions before."""
        return self.focus.begin(rows, source.mask.device)

    def split(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B H S d"]:
        """Separate the heads."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared, trail: Trail
    ) -> tuple[Float[Tensor, "N T D"], Float[Tensor, "N T S"], Trail]:
        """Average the values by each head's attention and mix the heads."""
        assert source.keys is not None
        folded = fold(self.query(query), len(source.values)) * (self.width // self.heads) ** -0.5
        keys, values = self.split(source.keys), self.split(source.values)
        scores = torch.matmul(self.split(folded), keys.transpose(2, 3))
        weights, trail = self.focus(scores, query, source.mask, trail)
        found = torch.matmul(weights, values.to(weights.dtype)).transpose(1, 2)
        context = self.out(found.reshape(query.shape))
        return context, weights.mean(1).reshape(*query.shape[:2], -1), trail


class MultiHeadAttentionBlueprint(AttentionBlueprint):
    """Scaled dot products in several subspaces."""

    kind: Literal["multihead"] = "multihead"
    heads: int = Field(4, ge=1)
    """attention heads; must divide the decoder's width"""

    def build(self, query: int, memory: int) -> Connection:
        """Make it.

        Raises:
            Problem: the heads do not divide the width.
        """
        if query % self.heads:
            raise Problem(
                f"{self.heads} heads do not divide the decoder's width of {query}; change one",
                "model.decoder.connection.heads",
            )
        return MultiHeadAttention(query, memory, self.heads, self.focus(query))

    def context_width(self, query: int, memory: int) -> int:
        """Return the width of all heads together."""
        return query
