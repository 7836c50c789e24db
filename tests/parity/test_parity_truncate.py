"""Truncated backpropagation against plain loops that detach (Williams & Peng 1990)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

import pytest
import torch
from torch import Tensor, nn

from transduce.models.decoders.recurrent import RecurrentDecoder, RecurrentDecoderBlueprint
from transduce.models.interface import Bank
from transduce.nn.dropout import MaskPool, drawing_from
from transduce.nn.recurrent import Bidirectional, Stack, Style
from transduce.nn.steps import Cell
from transduce.tree import detach

CELLS: Final[tuple[Cell, ...]] = get_args(Cell)
TRUNCATE, INPUTS, WIDTH, LAYERS, STEPS = 3, 5, 6, 2, 8
LENGTHS: Final = torch.tensor([8, 1, 4, 6])
CUT: Final = Style(truncate=TRUNCATE)


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Compute in double precision."""
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_hand(cell: Cell, layer: nn.Module, x: Tensor) -> Tensor:
    """Read (N, T, E) with torch's cell, one step at a time."""
    width = layer.get_parameter("weight_hh_l0").shape[1]
    unit = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}.get(cell)
    plain = unit(x.shape[2], width) if unit else nn.RNNCell(x.shape[2], width, nonlinearity=cell)
    weights: dict[str, Tensor]
    weights = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
    state: Any = x.new_zeros(len(x), width)
    state = (state, state) if cell == "lstm" else state
    outputs = []
    for step, entering in enumerate(x.unbind(1)):
        if step % TRUNCATE == 0:
            state = detach(state)
        state = torch.func.functional_call(plain, weights, (entering, state))
        outputs.append(state[0] if cell == "lstm" else state)
    return torch.stack(outputs, 1)


def compare(ours: Tensor, theirs: Tensor, leaves: Sequence[Tensor]) -> None:
    """Compare values, and the gradients of a random sum of them."""
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    weight = torch.randn_like(ours)
    found, wanted = (
        torch.autograd.grad((out * weight).sum(), leaves, retain_graph=True)
        for out in (ours, theirs)
    )
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_stack(cell: Cell) -> None:
    stack = Stack(cell, INPUTS, WIDTH, LAYERS, 0.0, CUT)
    x = torch.randn(4, STEPS, INPUTS, requires_grad=True)
    expected: Tensor = x
    for layer in stack.layers:
        expected = by_hand(cell, layer, expected)
    compare(stack(x)[0], expected, [x, *stack.parameters()])


@pytest.mark.parametrize("cell", CELLS)
def test_both_directions(cell: Cell) -> None:
    """Each is cut every so many of its own steps, the backward one from the end of its row."""
    reader = Bidirectional(cell, INPUTS, WIDTH, LAYERS, 0.0, CUT)
    x = torch.randn(4, STEPS, INPUTS, requires_grad=True)
    ours, theirs = reader(x, LENGTHS), []
    for row, size in enumerate(LENGTHS.tolist()):
        read = x[row : row + 1, :size]
        for there, back in zip(reader.forwards, reader.backwards, strict=True):
            turned = by_hand(cell, back, read.flip(1)).flip(1)
            read = torch.cat([by_hand(cell, there, read), turned], -1)
        theirs.append(read[0])
    real = torch.cat([ours[row, :size] for row, size in enumerate(LENGTHS.tolist())])
    compare(real, torch.cat(theirs), [x, *reader.parameters()])


DECODERS: Final[list[dict[str, Any]]] = [
    {},
    {"layers": 2, "cell": "gru", "residual": True},
    {"normalised": True},
    {"connection": "coverage"},
    {"connection": "location_aware", "order": "before"},
    {"connection": "coverage", "input_feeding": True, "layers": 2},
    {"connection": "fixed", "order": "before"},
]


@pytest.mark.parametrize("facts", DECODERS, ids=str)
def test_decoder(facts: dict[str, Any]) -> None:
    """Reading a target whole is reading it in pieces, with all that one leaves to the next cut."""
    sizes = {"embedding": INPUTS, "width": WIDTH, "dropout": 0.0, "truncate": TRUNCATE} | facts
    ours, plain = (
        RecurrentDecoder(RecurrentDecoderBlueprint.model_validate(sizes | change), 9, WIDTH)
        for change in ({}, {"truncate": None})
    )
    plain.load_state_dict(ours.state_dict())
    states, summary = torch.randn(2, 5, WIDTH), torch.randn(2, WIDTH)
    for leaf in (states, summary):
        leaf.requires_grad_()
    memory = {"source": Bank(states, torch.ones(2, 5, dtype=torch.bool), summary)}
    tokens, weight = torch.randint(0, 9, (2, STEPS)), torch.randn(2, STEPS, WIDTH)
    state, pieces = plain.start(memory), []
    for piece in torch.split(tokens, TRUNCATE, 1):
        out, state = plain.extend(piece, state)
        cut = {name: detach(getattr(state, name)) for name in ("hidden", "trail", "feed")}
        state = state._replace(**cut)
        pieces.append(out.features)
    outs, gradients = [ours(tokens, memory).features, torch.cat(pieces, 1)], []
    torch.testing.assert_close(*outs, atol=1e-12, rtol=0)
    for decoder, features in zip((ours, plain), outs, strict=True):
        features.backward(weight)
        gradients.append([value.grad for value in (states, summary, *decoder.parameters())])
        states.grad = summary.grad = None
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


@pytest.mark.parametrize("style", [Style(), Style(norm=True), Style(variational=True)], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_the_values_are_those_without_truncation(cell: Cell, style: Style) -> None:
    whole = Stack(cell, INPUTS, WIDTH, LAYERS, 0.5, style)
    cut = Stack(cell, INPUTS, WIDTH, LAYERS, 0.5, style._replace(truncate=TRUNCATE))
    cut.load_state_dict(whole.state_dict())
    x, outs = torch.randn(4, STEPS, INPUTS), []
    for stack in (whole, cut):
        with drawing_from(MaskPool(2, 1 << 12, 4)):
            outs.append(stack(x)[0])
    torch.testing.assert_close(outs[1], outs[0], atol=1e-12, rtol=0)


def test_nothing_is_learned_across_a_cut() -> None:
    stack, x = Stack("lstm", INPUTS, WIDTH, 1, 0.0, CUT), torch.randn(1, STEPS, INPUTS)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(stack(x)[0][:, TRUNCATE + 1].sum(), x)
    reached = (gradient[0] != 0).any(-1).tolist()
    assert reached == [TRUNCATE <= step <= TRUNCATE + 1 for step in range(STEPS)]
