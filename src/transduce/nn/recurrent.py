"""Stacks of recurrent layers that run over whole sequences or a few tokens at a time."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.nn.dropout import Dropout
from transduce.sequences import reverse

Cell = Literal["lstm", "gru"]


class Hidden(NamedTuple):
    """The state of a stack after the tokens read so far; ``cell`` is empty for a GRU."""

    output: Float[Tensor, "N L D"]
    cell: Float[Tensor, "N L D"]


def layer(cell: Cell, inputs: int, width: int) -> nn.LSTM | nn.GRU:
    """Return one layer: orthogonal recurrence, and LSTMs that remember (Jozefowicz 2015)."""
    made = (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, width, batch_first=True)
    for name, parameter in made.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
        elif "_ih_" in name:
            nn.init.xavier_uniform_(parameter)
        else:
            for gate in torch.split(parameter.data, width):
                nn.init.orthogonal_(gate)
        if cell == "lstm" and "bias_ih" in name:
            nn.init.ones_(parameter.data[width : 2 * width])
    return made


class Stack(nn.Module):
    """Layers that read from left to right (Hochreiter 1997; Cho 2014), dropout between them."""

    def __init__(self, cell: Cell, inputs: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.width = width
        sizes = [inputs] + [width] * (layers - 1)
        self.layers = nn.ModuleList(layer(cell, size, width) for size in sizes)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "N T E"], state: Hidden | None = None
    ) -> tuple[Float[Tensor, "N T D"], Hidden]:
        """Read T more positions; without a state, from zero."""
        outputs, cells = [], []
        for depth, part in enumerate(self.layers):
            before = None if state is None else self._layer_state(state, depth)
            x, after = part(self.dropout(x) if depth else x, before)
            output, cell = after if self.cell == "lstm" else (after, after.new_zeros(1, len(x), 0))
            outputs.append(output[0])
            cells.append(cell[0])
        return x, Hidden(torch.stack(outputs, 1), torch.stack(cells, 1))

    def _layer_state(self, state: Hidden, depth: int) -> Tensor | tuple[Tensor, Tensor]:
        output = state.output[None, :, depth].contiguous()
        if self.cell == "gru":
            return output
        return output, state.cell[None, :, depth].contiguous()


class Bidirectional(nn.Module):
    """Layers that read both ways (Schuster 1997); rows of a batch do not see one another's padding.

    The backward half reads each row turned around by its own length: exact, and several times
    faster on a CPU than torch's packed sequences.
    """

    def __init__(self, cell: Cell, inputs: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [inputs] + [width] * (layers - 1)
        self.forwards = nn.ModuleList(layer(cell, size, width // 2) for size in sizes)
        self.backwards = nn.ModuleList(layer(cell, size, width // 2) for size in sizes)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B S E"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S D"]:
        """Read whole rows."""
        for depth, (forwards, backwards) in enumerate(
            zip(self.forwards, self.backwards, strict=True)
        ):
            x = self.dropout(x) if depth else x
            there, back = forwards(x)[0], backwards(reverse(x, lengths))[0]
            x = torch.cat([there, reverse(back, lengths)], -1)
        return x
