"""Linear maps whose weights can be laid out ahead for the processor, for predicting.

A plain product lays the weights out anew each time it runs. That is up to half of its time at the
few rows that a search reads at once, and the larger the map the worse.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

FEW: Final = 4  # rows below which preparing a packed product costs more than it saves
ROWS: Final = 64  # rows for which the weights are laid out; other numbers work as well


class Packed:
    """A weight in the layout that oneDNN's products read; torch's compiler uses the same calls."""

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        self.data = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Whether such products exist here for this weight."""
        known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        return known and plain and torch._C._has_mkldnn

    def product(self, x: Float[Tensor, "*rows I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
        """Return x W' + b."""
        answer: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.data, bias, "none", [], "")
        return answer


class Packable(nn.Module):
    """Holds a ``weight`` and, for predicting, the same once more in its packed layout."""

    weight: Tensor
    packed: Packed | None = None

    def product(self, x: Float[Tensor, "*rows I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
        """Return x W' + b; what needs a gradient or another type takes the ordinary way."""
        ordinary = (
            self.packed is None or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
        )
        if ordinary or x.numel() < FEW * x.shape[-1]:
            return F.linear(x, self.weight, bias)
        assert self.packed is not None
        return self.packed.product(x, bias)


class Linear(nn.Linear, Packable):
    """A linear map as torch has it, which can be packed."""

    def forward(self, x: Float[Tensor, "*rows I"]) -> Float[Tensor, "*rows O"]:
        """Return x W' + b."""
        return self.product(x, self.bias)


def pack(model: nn.Module) -> None:
    """Pack all weights of a model that will only predict from now on.

    They must not change any more, and take their place in memory twice.
    """
    for module in model.modules():
        if isinstance(module, Packable) and Packed.serves(module.weight):
            module.packed = Packed(module.weight)
