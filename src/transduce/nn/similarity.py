"""How attention heads compare a query with a key."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transduce.blueprint import Part


class Similarity(nn.Module):
    """Prepares queries and keys for their product, which is divided by sqrt(d): as it is, not."""

    def query(self, x: Float[Tensor, "N H T d"]) -> Float[Tensor, "N H T d"]:
        """Prepare queries."""
        return x

    def keys(self, x: Float[Tensor, "N H S d"]) -> Float[Tensor, "N H S d"]:
        """Prepare keys."""
        return x


class SimilarityBlueprint(Part):
    """Slot for the comparison of query and key."""

    @abstractmethod
    def build(self) -> Similarity:
        """Make it for one attention."""


class DotBlueprint(SimilarityBlueprint):
    """Their product over the root of their width (Vaswani 2017)."""

    kind: Literal["dot"] = "dot"

    def build(self) -> Similarity:
        """Make it."""
        return Similarity()


class Cosine(Similarity):
    """The cosine of their angle times a learned number, so that no score can grow without bound."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def query(self, x: Float[Tensor, "N H T d"]) -> Float[Tensor, "N H T d"]:
        """Give queries the length that makes up for the division by sqrt(d)."""
        scale: Tensor = self.scale * x.shape[-1] ** 0.5
        return F.normalize(x, dim=-1).to(x.dtype) * scale.to(x.dtype)

    def keys(self, x: Float[Tensor, "N H S d"]) -> Float[Tensor, "N H S d"]:
        """Give keys the length 1."""
        return F.normalize(x, dim=-1).to(x.dtype)


class CosineBlueprint(SimilarityBlueprint):
    """The cosine of their angle times a learned number (QKNorm: Henry 2020)."""

    kind: Literal["cosine"] = "cosine"
    scale: float = Field(10.0, gt=0)
    """that number at first; for sequences of length L the paper takes log2(L * L - L)"""

    def build(self) -> Similarity:
        """Make it."""
        return Cosine(self.scale)
