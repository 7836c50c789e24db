"""Small parts that are added to a trained model, which stays as it is while they alone learn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Addition(nn.Module):
    """Parameters that a model did not have when it was trained.

    It begins by changing nothing.
    """


class LowRank(Addition):
    """W + scale * B A, the change of a weight as a product of two thin matrices (Hu 2021).

    It takes the place of the weight (``torch.nn.utils.parametrize``), so that whatever reads that
    weight, a product, a convolution or a fused recurrent layer, reads the changed one. A kernel
    with more dimensions is a matrix whose rows are its first.
    """

    def __init__(self, weight: Float[Tensor, "O ..."], rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        rows, columns = weight.shape[0], weight[0].numel()
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.normal_(self.down, std=columns**-0.5)

    def forward(self, weight: Float[Tensor, "O ..."]) -> Float[Tensor, "O ..."]:
        """Return the changed weight, in its own type."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.up @ self.down).view_as(weight)


class Bottleneck(Addition):
    """x + B f(A x), f being a rectifier: a layer of its own, much narrower (Houlsby 2019)."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, narrow), nn.Linear(narrow, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Add what it has to say."""
        added: Tensor = self.up(F.relu(self.down(x)))
        return x + added


class Outlet(nn.Module):
    """Where a layer says what it has made: an identity, until a ``Bottleneck`` is put here."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.adapter: Bottleneck | None = None

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        """Return ``x``, or what the adapter makes of it."""
        return x if self.adapter is None else self.adapter(x)


def learned(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return by name what training a model is about: what was added to it, or else all of it."""
    added = {
        id(parameter)
        for part in model.modules()
        if isinstance(part, Addition)
        for parameter in part.parameters()
    }
    named = model.named_parameters()
    return {name: parameter for name, parameter in named if not added or id(parameter) in added}


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Make plain weights of all that ``LowRank`` changes."""
    for part in model.modules():
        if parametrize.is_parametrized(part):
            changes = part.get_submodule("parametrizations")
            for name, _ in [*changes.named_children()]:
                parametrize.remove_parametrizations(part, name)
