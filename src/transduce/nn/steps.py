"""Recurrent layers read one position at a time, where a step waits for the one before.

torch's fused layers read whole sequences. They cannot where a decoder feeds back what it made at
the step before, where the state is normalised, or where a mask lies on the recurrence. Here each
step does only what has to wait: the products with inputs that are known are one product for all
positions, done ahead.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Cell = Literal["lstm", "gru", "tanh", "relu"]
GATES: Final = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


class LayerState(NamedTuple):
    """The state of one layer; ``cell`` is empty but for an LSTM."""

    output: Float[Tensor, "N D"]
    cell: Float[Tensor, "N D"]


class NormedLayer(nn.Module):
    """The weights of a recurrent layer with layer normalisation (Ba 2016).

    What comes from the input and what comes from the step before are normalised each for itself,
    and so is an LSTM's cell where it is read.
    """

    def __init__(self, cell: Cell, inputs: int, width: int) -> None:
        super().__init__()
        size = GATES[cell] * width
        self.weight_ih_l0 = nn.Parameter(torch.empty(size, inputs))
        self.weight_hh_l0 = nn.Parameter(torch.empty(size, width))
        self.input_norm, self.hidden_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.cell_norm = nn.LayerNorm(width) if cell == "lstm" else nn.Identity()


class Steps:
    """One layer, ready to be read step by step.

    Args:
        cell: the kind of unit.
        layer: where the weights are, torch's own or a ``NormedLayer``.
        known: the inputs, or as many of the first features of each as are known by now.
        mask: what the output is multiplied with on its way to the next step (Gal 2016).
    """

    def __init__(
        self,
        cell: Cell,
        layer: nn.Module,
        known: Float[Tensor, "N T E"] | None,
        mask: Float[Tensor, "N D"] | None = None,
    ) -> None:
        self.cell, self.mask = cell, mask
        self.normed = layer if isinstance(layer, NormedLayer) else None
        # but for these two, all that enters a unit is one sum, which takes one product
        self.summed = cell != "gru" and self.normed is None
        # an adapted weight is no parameter, but what is made of one
        weight: Tensor = getattr(layer, "weight_ih_l0")  # noqa: B009
        recurrent: Tensor = getattr(layer, "weight_hh_l0")  # noqa: B009
        dtype = product_type(weight)
        self.bias: Tensor | None = None
        self.recurrent_bias: Tensor | None = None
        if self.normed is None:
            biases = [layer.get_parameter(f"bias_{side}_l0").to(dtype) for side in ("ih", "hh")]
            self.bias, self.recurrent_bias = biases
            if self.summed:
                self.bias, self.recurrent_bias = biases[0] + biases[1], None
        split = 0
        self.ahead: tuple[Tensor, ...] | None = None
        if known is not None:
            split = known.shape[2]
            self.ahead = F.linear(known.transpose(0, 1), weight[:, :split], self.bias).unbind(0)
        # the weights are cast here, once, as autocast would do it at every step
        self.weight, self.recurrent = weight[:, split:].to(dtype), recurrent.to(dtype)
        if self.summed:
            self.weight = torch.cat([self.weight, self.recurrent], 1)

    def __call__(
        self, step: int, late: Float[Tensor, "N F"] | None, state: LayerState
    ) -> LayerState:
        """Read position number ``step``, of which ``late`` was not known ahead."""
        output = state.output if self.mask is None else state.output * self.mask
        if self.summed:
            return self._unit(self._entering(step, _beside(late, output)), state)
        entering, recurrent = self._entering(step, late), F.linear(output, self.recurrent)
        if self.recurrent_bias is not None:
            recurrent = recurrent + self.recurrent_bias
        if self.normed is not None:
            entering = self.normed.input_norm(entering)
            recurrent = self.normed.hidden_norm(recurrent)
        if self.cell == "gru":
            return LayerState(_gru(entering, recurrent, state.output), state.cell)
        return self._unit(entering + recurrent, state)

    def _entering(self, step: int, late: Float[Tensor, "N F"] | None) -> Float[Tensor, "N G"]:
        """Return the weighted sum of what was known ahead and what was not."""
        if late is None:
            assert self.ahead is not None
            return self.ahead[step]
        if self.ahead is None:
            return F.linear(late, self.weight, self.bias)
        return torch.addmm(self.ahead[step], late, self.weight.T)

    def _unit(self, gates: Float[Tensor, "N G"], state: LayerState) -> LayerState:
        if self.cell == "tanh":
            return LayerState(gates.tanh(), state.cell)
        if self.cell == "relu":
            return LayerState(gates.relu(), state.cell)
        entry, keep, new, leave = gates.chunk(4, 1)
        cell = keep.sigmoid() * state.cell + entry.sigmoid() * new.tanh()
        read = cell if self.normed is None else self.normed.cell_norm(cell)
        return LayerState(leave.sigmoid() * read.tanh().to(leave.dtype), cell)


def _beside(late: Float[Tensor, "N F"] | None, output: Float[Tensor, "N D"]) -> Tensor:
    return output if late is None else torch.cat([late, output], 1)


def _gru(
    entering: Float[Tensor, "N G"], recurrent: Float[Tensor, "N G"], output: Float[Tensor, "N D"]
) -> Float[Tensor, "N D"]:
    """Return the new output (Cho 2014), the reset gate behind the product, as in torch."""
    width = output.shape[1]
    both = (entering[:, : 2 * width] + recurrent[:, : 2 * width]).sigmoid()
    reset, update = both.chunk(2, 1)
    new = (entering[:, 2 * width :] + reset * recurrent[:, 2 * width :]).tanh()
    return new + update * (output - new)


def product_type(weight: Tensor) -> torch.dtype:
    """Return the type in which a product with this weight is computed here."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
