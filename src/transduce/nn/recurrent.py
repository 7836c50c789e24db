"""Stacks of recurrent layers that run over whole sequences or a few tokens at a time."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.nn.addition import Outlet
from transduce.nn.dropout import Dropout, RowDropout
from transduce.nn.recompute import recomputable
from transduce.nn.steps import Cell, LayerState, NormedLayer, Steps, product_type
from transduce.sequences import reverse
from transduce.tree import detach


class Hidden(NamedTuple):
    """The state of a stack after the tokens read so far; ``cell`` is empty but for an LSTM."""

    output: Float[Tensor, "N L D"]
    cell: Float[Tensor, "N L D"]


def layer(cell: Cell, inputs: int, width: int, norm: bool = False) -> nn.RNNBase | NormedLayer:
    """Return one layer: orthogonal recurrence, and LSTMs that remember (Jozefowicz 2015).

    Plain units that rectify begin by repeating themselves (Le 2015).
    """
    made = NormedLayer(cell, inputs, width) if norm else _fused(cell, inputs, width)
    for name, parameter in made.named_parameters():
        if "_ih_" in name and "weight" in name:
            nn.init.xavier_uniform_(parameter)
        elif "_hh_" in name and "weight" in name:
            for gate in torch.split(parameter.data, width):
                nn.init.eye_(gate) if cell == "relu" else nn.init.orthogonal_(gate)
        elif "bias" in name:
            nn.init.zeros_(parameter)
        if cell == "lstm" and name in ("bias_ih_l0", "input_norm.bias"):
            nn.init.ones_(parameter.data[width : 2 * width])
    return made


def _fused(cell: Cell, inputs: int, width: int) -> nn.RNNBase:
    if cell in ("tanh", "relu"):
        return nn.RNN(inputs, width, nonlinearity=cell, batch_first=True)
    return (nn.LSTM if cell == "lstm" else nn.GRU)(inputs, width, batch_first=True)


class Style(NamedTuple):
    """What a stack of recurrent layers may have besides."""

    residual: bool = False  # each layer but the first adds to what it reads (Wu 2016)
    norm: bool = False  # layer normalisation (Ba 2016)
    variational: bool = False  # one dropout mask for each row, on the recurrence too (Gal 2016)
    truncate: int | None = None  # steps that a gradient goes back at most (Williams & Peng 1990)

    def dropout(self, rate: float) -> Dropout:
        """Return the dropout that goes with it."""
        return (RowDropout if self.variational else Dropout)(rate)


PLAIN: Final = Style()


def sweep(
    cell: Cell,
    part: nn.Module,
    x: Float[Tensor, "N T E"],
    before: LayerState,
    dropout: Dropout,
    truncate: int | None = None,
) -> tuple[Float[Tensor, "N T D"], LayerState]:
    """Let one layer read whole sequences; no gradient crosses every ``truncate`` steps."""
    mask = dropout.mask(x, before.output.shape[1])
    outputs: list[Tensor] = []
    for piece in torch.split(x, truncate or x.shape[1], 1):
        if outputs:
            before = detach(before)
        output, before = recomputable(_read)(cell, part, piece, before, mask)
        outputs.append(output)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), before


def _read(
    cell: Cell,
    part: nn.Module,
    x: Float[Tensor, "N T E"],
    before: LayerState,
    mask: Float[Tensor, "N D"] | None,
) -> tuple[Float[Tensor, "N T D"], LayerState]:
    """Let one layer read: fused where possible, else step by step."""
    if isinstance(part, nn.RNNBase) and mask is None and not _in_float16_on_a_cpu(x):
        output, memory = (leaf[None].contiguous() for leaf in before)
        if cell != "lstm":
            x, output = part(x, output)
            return x, LayerState(output[0], before.cell)
        x, (output, memory) = part(x, (output, memory))
        return x, LayerState(output[0], memory[0])
    steps, outputs = Steps(cell, part, x, mask), []
    for step in range(x.shape[1]):
        before = steps(step, None, before)
        outputs.append(before.output)
    return torch.stack(outputs, 1), before


def _in_float16_on_a_cpu(x: Tensor) -> bool:
    """Return whether it is computed in a type that oneDNN has no LSTM for on most processors."""
    return x.device.type == "cpu" and product_type(x) == torch.float16


class Stack(nn.Module):
    """Layers that read from left to right (Hochreiter 1997; Cho 2014), dropout between them."""

    def __init__(
        self,
        cell: Cell,
        inputs: int,
        width: int,
        layers: int,
        dropout: float,
        style: Style = PLAIN,
    ) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.width, self.style = width, style
        sizes = [inputs] + [width] * (layers - 1)
        self.layers = nn.ModuleList(layer(cell, size, width, style.norm) for size in sizes)
        self.outlets = nn.ModuleList(Outlet(width) for _ in sizes)
        self.dropout = style.dropout(dropout)

    def begin(self, x: Float[Tensor, "N T E"]) -> Hidden:
        """Return the state of zeros."""
        output = x.new_zeros(len(x), len(self.layers), self.width)
        return Hidden(output, torch.zeros_like(output) if self.cell == "lstm" else output[:, :, :0])

    def forward(
        self, x: Float[Tensor, "N T E"], state: Hidden | None = None
    ) -> tuple[Float[Tensor, "N T D"], Hidden]:
        """Read T more positions; without a state, from zero."""
        before, after = split(state or self.begin(x)), []
        for depth, part in enumerate(self.layers):
            entering = self.dropout(x) if depth else x
            read, last = sweep(
                self.cell, part, entering, before[depth], self.dropout, self.style.truncate
            )
            read = self.outlets[depth](read)
            x = x + read if depth and self.style.residual else read
            after.append(last)
        return x, join(after)

    def steps(self, known: Float[Tensor, "N T E"], state: Hidden) -> StackSteps:
        """Prepare to read T more positions one by one (see ``Steps`` for what is known)."""
        return StackSteps(self, known, state)


class StackSteps:
    """A stack that is read one position at a time."""

    def __init__(self, stack: Stack, known: Float[Tensor, "N T E"], state: Hidden) -> None:
        self.residual, self.states = stack.style.residual, split(state)
        self.drop, self.outlets = stack.dropout.hold(known, stack.width), stack.outlets
        self.layers = [
            Steps(
                stack.cell,
                part,
                None if depth else known,
                stack.dropout.mask(known, stack.width),
            )
            for depth, part in enumerate(stack.layers)
        ]

    def __call__(self, step: int, late: Float[Tensor, "N F"] | None) -> Float[Tensor, "N D"]:
        """Read position number ``step``; return the output of the last layer."""
        x = late
        for depth, layer in enumerate(self.layers):
            entering = self.drop(x) if depth and x is not None else x
            self.states[depth] = layer(step, entering, self.states[depth])
            read = self.outlets[depth](self.states[depth].output)
            x = read + x if depth and self.residual and x is not None else read
        assert x is not None
        return x

    def forget(self) -> None:
        """Let no gradient go further back than to here."""
        self.states = [detach(state) for state in self.states]

    @property
    def top(self) -> Float[Tensor, "N D"]:
        """The state of the last layer."""
        return self.states[-1].output

    def hidden(self) -> Hidden:
        """Return the state after all that was read."""
        return join(self.states)


def split(hidden: Hidden) -> list[LayerState]:
    """Take the state of a stack apart."""
    return [
        LayerState(*leaves) for leaves in zip(*(leaf.unbind(1) for leaf in hidden), strict=True)
    ]


def join(states: list[LayerState]) -> Hidden:
    """Put the states of the layers together."""
    return Hidden(*(torch.stack(leaves, 1) for leaves in zip(*states, strict=True)))


class Bidirectional(nn.Module):
    """Layers that read both ways (Schuster 1997); rows of a batch do not see one another's padding.

    The backward half reads each row turned around by its own length: exact, and several times
    faster on a CPU than torch's packed sequences.
    """

    def __init__(
        self,
        cell: Cell,
        inputs: int,
        width: int,
        layers: int,
        dropout: float,
        style: Style = PLAIN,
    ) -> None:
        super().__init__()
        self.cell: Cell = cell
        self.side, self.style = width // 2, style
        sizes = [inputs] + [width] * (layers - 1)
        self.forwards = nn.ModuleList(layer(cell, size, self.side, style.norm) for size in sizes)
        self.backwards = nn.ModuleList(layer(cell, size, self.side, style.norm) for size in sizes)
        self.outlets = nn.ModuleList(Outlet(2 * self.side) for _ in sizes)
        self.dropout = style.dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B S E"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S D"]:
        """Read whole rows."""
        zero = x.new_zeros(len(x), self.side)
        start = LayerState(zero, zero if self.cell == "lstm" else zero[:, :0])
        for depth, (forwards, backwards) in enumerate(
            zip(self.forwards, self.backwards, strict=True)
        ):
            entering = self.dropout(x) if depth else x
            turned, drop, truncate = reverse(entering, lengths), self.dropout, self.style.truncate
            there, _ = sweep(self.cell, forwards, entering, start, drop, truncate)
            back, _ = sweep(self.cell, backwards, turned, start, drop, truncate)
            both = self.outlets[depth](torch.cat([there, reverse(back, lengths)], -1))
            x = x + both if depth and self.style.residual else both
        return x
