"""What convolutional sequence-to-sequence models are made of (Gehring 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transduce.nn.addition import Outlet
from transduce.nn.dropout import Dropout


class GatedConvolution(nn.Module):
    """Dropout, a convolution, and a gated linear unit that halves its outputs (Dauphin 2017).

    It pads nothing: a row of T + kernel - 1 positions becomes one of T.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.convolution = nn.Conv1d(width, 2 * width, kernel)
        # The gate lets a quarter of the variance through.
        std = math.sqrt(4 * (1 - dropout) / (kernel * width))
        nn.init.normal_(self.convolution.weight, std=std)
        nn.init.zeros_(self.convolution.get_parameter("bias"))
        self.outlet = Outlet(width)

    def forward(self, x: Float[Tensor, "N P D"]) -> Float[Tensor, "N T D"]:
        """Return one vector for each place of the kernel."""
        read = F.glu(self.convolution(self.dropout(x).transpose(1, 2)), 1).transpose(1, 2)
        said: Tensor = self.outlet(read)
        return said


def add(x: Float[Tensor, "*shape"], y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Add two values of like variance and keep that variance."""
    return (x + y) * math.sqrt(0.5)


def divide_gradient(x: Float[Tensor, "*shape"], number: int) -> Float[Tensor, "*shape"]:
    """Return ``x``; on the way back its gradient is divided."""
    return torch.lerp(x.detach(), x, 1 / number)
