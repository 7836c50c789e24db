"""What Transformer layers are made of besides attention."""

from __future__ import annotations

import math
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.nn.dropout import Dropout

NormOrder = Literal["pre", "post"]


def projection(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear map with Xavier's uniform weights (Glorot 2010)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FeedForward(nn.Sequential):
    """Two linear maps around a ReLU, position by position (Vaswani 2017)."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        first, second = projection(width, inner), projection(inner, width)
        super().__init__(first, nn.ReLU(inplace=True), Dropout(dropout), second)


class Residual(nn.Module):
    """The frame of a sub-layer: x + f(norm(x)) (pre, Xiong 2020) or norm(x + f(x)) (post)."""

    def __init__(self, width: int, order: NormOrder, dropout: float) -> None:
        super().__init__()
        self.order, self.norm, self.dropout = order, nn.LayerNorm(width), Dropout(dropout)

    def enter(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return what the sub-layer reads."""
        if self.order == "post":
            return x
        normed: Tensor = self.norm(x)
        return normed

    def leave(
        self, x: Float[Tensor, "B T D"], change: Float[Tensor, "B T D"]
    ) -> Float[Tensor, "B T D"]:
        """Add what the sub-layer made."""
        total: Tensor = x + self.dropout(change)
        return self.norm(total) if self.order == "post" else total


class FinalNorm(nn.Module):
    """What closes a stack: a norm after pre-norm layers, nothing after post-norm layers."""

    def __init__(self, width: int, order: NormOrder) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if order == "pre" else nn.Identity()

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Close the stack."""
        normed: Tensor = self.norm(x)
        return normed


class TokenTable(nn.Embedding):
    """Token vectors of about unit length, so that the table can serve as output layer.

    They are read times sqrt(D) (Vaswani 2017): vectors of unit variance move a recurrent layer or
    outweigh a position from the first update on.
    """

    def reset_parameters(self) -> None:
        """Draw the vectors."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N T D"]:
        """Look the tokens up."""
        return super().forward(tokens) * math.sqrt(self.embedding_dim)
