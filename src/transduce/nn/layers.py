"""What Transformer layers are made of besides attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.nn.addition import Outlet
from transduce.nn.dropout import Dropout
from transduce.nn.packed import Linear

NormOrder = Literal["pre", "post"]
Normalisation = Literal["layer", "rms"]
Activation = Literal["relu", "gelu", "swiglu"]


def projection(inputs: int, outputs: int) -> Linear:
    """Return a linear map with Xavier's uniform weights (Glorot 2010)."""
    layer = Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Swiglu(nn.Module):
    """One half of the values, through SiLU, opens or shuts the other half (Shazeer 2020)."""

    def forward(self, x: Float[Tensor, "*shape I2"]) -> Float[Tensor, "*shape I"]:
        """Multiply the halves."""
        gate, values = x.chunk(2, -1)
        return F.silu(gate) * values


ACTIVATIONS: Final[dict[Activation, Callable[[], nn.Module]]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "swiglu": Swiglu,
}


class FeedForward(nn.Sequential):
    """Two linear maps around an activation, position by position (Vaswani 2017)."""

    def __init__(
        self, width: int, inner: int, dropout: float, activation: Activation = "relu"
    ) -> None:
        outputs = 2 * inner if activation == "swiglu" else inner
        first, second = projection(width, outputs), projection(inner, width)
        super().__init__(first, ACTIVATIONS[activation](), Dropout(dropout), second)


def normalise(width: int, kind: Normalisation) -> nn.Module:
    """Return a norm of mean and variance (Ba 2016) or of the root mean square (Zhang 2019)."""
    return nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width, eps=1e-6)


class Residual(nn.Module):
    """The frame of a sub-layer: x + f(norm(x)) (pre, Xiong 2020) or norm(x + f(x)) (post)."""

    def __init__(
        self, width: int, order: NormOrder, dropout: float, kind: Normalisation = "layer"
    ) -> None:
        super().__init__()
        self.order, self.norm, self.dropout = order, normalise(width, kind), Dropout(dropout)
        self.outlet = Outlet(width)

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
        total: Tensor = x + self.outlet(self.dropout(change))
        if self.order == "post":
            total = self.norm(total)
        return total


class FinalNorm(nn.Module):
    """What closes a stack: a norm after pre-norm layers, nothing after post-norm layers."""

    def __init__(self, width: int, order: NormOrder, kind: Normalisation = "layer") -> None:
        super().__init__()
        self.norm = normalise(width, kind) if order == "pre" else nn.Identity()

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
