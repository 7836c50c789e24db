"""Heads: from a decoder's features to scores of the output symbols."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transduce.models.interface import Head, HeadBlueprint, Memory, Readout
from transduce.nn.loss import linear_cross_entropy
from transduce.nn.packed import Linear, Packable
from transduce.sequences import Sequences


class LinearHeadBlueprint(HeadBlueprint):
    """One linear map and a softmax."""

    kind: Literal["linear"] = "linear"

    def build(self, width: int, memory: int, embedding: nn.Embedding, tied: bool) -> LinearHead:
        """Make the head."""
        return LinearHead(width, embedding, tied)


class LinearHead(Head, Packable):
    """A linear map and a softmax; tied to the embeddings it is their table (Press & Wolf 2017)."""

    def __init__(self, width: int, embedding: nn.Embedding, tied: bool) -> None:
        super().__init__()
        symbols, narrow = embedding.num_embeddings, embedding.embedding_dim
        self.project = Linear(width, narrow) if tied and width != narrow else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(symbols))
        self.weight = embedding.weight if tied else nn.Parameter(torch.empty(symbols, width))
        if not tied:
            nn.init.normal_(self.weight, std=width**-0.5)

    def start(self, memory: Memory) -> None:
        """Remember nothing of the source."""

    def forward(self, out: Readout, source: Any) -> Float[Tensor, "N T V"]:
        """Return log-probabilities."""
        return self.product(self.project(out.features), self.bias).float().log_softmax(-1)

    def loss(
        self,
        out: Readout,
        source: Any,
        labels: Sequences,
        smoothing: float,
        weights: Float[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the summed loss and negative log-likelihood over the real positions alone."""
        real = labels.mask().flatten().nonzero()[:, 0]
        features = out.features.flatten(0, 1).index_select(0, real)
        chosen = labels.data.flatten().index_select(0, real)
        features = self.project(features)
        given = features, self.weight, self.bias, chosen, smoothing
        if weights is None:
            return linear_cross_entropy(*given)
        return linear_cross_entropy(*given, weights.flatten().index_select(0, real))
