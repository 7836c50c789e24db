from __future__ import annotations

from typing import get_args

import pytest
import torch

from transduce.nn.dropout import MaskPool, RowDropout, drawing_from
from transduce.nn.recurrent import Bidirectional, Stack, Style, layer
from transduce.nn.steps import Cell

CELLS: tuple[Cell, ...] = get_args(Cell)


@pytest.mark.parametrize("cell", CELLS)
def test_reading_in_parts_is_reading_at_once(cell: Cell) -> None:
    torch.manual_seed(1)
    stack, x = Stack(cell, 5, 6, 3, 0.0), torch.randn(4, 7, 5)
    whole, last = stack(x)
    state, outs = None, []
    for part in torch.split(x, [1, 4, 2], 1):
        out, state = stack(part, state)
        outs.append(out)
    assert state is not None
    torch.testing.assert_close(torch.cat(outs, 1), whole)
    torch.testing.assert_close(state.output, last.output)
    torch.testing.assert_close(state.cell, last.cell)


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_leads_with_rows(cell: Cell) -> None:
    _, state = Stack(cell, 5, 6, 3, 0.0)(torch.randn(4, 7, 5))
    assert state.output.shape == (4, 3, 6)
    assert state.cell.shape == (4, 3, 6 if cell == "lstm" else 0)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_and_batch_mates_change_nothing_for_either_direction(cell: Cell) -> None:
    torch.manual_seed(2)
    reader, x = Bidirectional(cell, 5, 6, 2, 0.0), torch.randn(3, 7, 5)
    lengths = torch.tensor([7, 2, 4])
    out = reader(x, lengths)
    for row, size in enumerate(lengths.tolist()):
        alone = reader(x[row : row + 1, :size], torch.tensor([size]))
        torch.testing.assert_close(out[row : row + 1, :size], alone)


def test_an_lstm_begins_by_remembering() -> None:
    bias = dict(layer("lstm", 3, 4).named_parameters())
    assert (bias["bias_ih_l0"] + bias["bias_hh_l0"]).tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    assert (dict(layer("gru", 3, 4).named_parameters())["bias_ih_l0"] == 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_each_gate_begins_orthogonal(cell: Cell) -> None:
    weight = layer(cell, 3, 8).get_parameter("weight_hh_l0")
    for gate in torch.split(weight, 8):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)


def test_dropout_lies_between_layers_and_not_before_the_first() -> None:
    x, pool = torch.randn(2, 5, 4), MaskPool(1, 1 << 12, 4)
    for layers, changes in [(1, False), (2, True)]:
        for part, arguments in [
            (Stack("gru", 4, 4, layers, 0.5), (x,)),
            (Bidirectional("gru", 4, 4, layers, 0.5), (x, torch.tensor([5, 3]))),
        ]:
            with drawing_from(pool):
                dropped = part(*arguments)
            kept = part.eval()(*arguments)
            first, second = (out[0] if isinstance(out, tuple) else out for out in (dropped, kept))
            assert torch.equal(first, second) != changes


def test_units_that_rectify_begin_by_repeating_themselves() -> None:
    assert torch.equal(layer("relu", 3, 4).get_parameter("weight_hh_l0"), torch.eye(4))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_variational_dropout_drops_the_same_at_every_position(cell: Cell, norm: bool) -> None:
    torch.manual_seed(3)
    drop, x = RowDropout(0.5), torch.randn(3, 7, 5)
    zeros = drop(x) == 0
    assert zeros.any()
    assert not zeros.all()
    assert (zeros == zeros[:, :1]).all()
    held = drop.hold(x, 5)
    found = torch.stack([held(position) for position in x.unbind(1)], 1) == 0
    assert (found == found[:, :1]).all()
    style = Style(norm=norm, variational=True)
    stack = Stack(cell, 5, 6, 2, 0.5, style)
    first, second = stack(x)[0], stack(x)[0]
    assert not torch.equal(first, second)
    stack.eval()
    parts = [stack(part)[0] for part in (x, x)]
    assert torch.equal(*parts)
    if not norm:
        plain = Stack(cell, 5, 6, 2, 0.5).eval()
        plain.load_state_dict(stack.state_dict())
        assert torch.equal(plain(x)[0], parts[0]), "out of training it is the fused layer"


def test_the_mask_lies_on_the_recurrence_too() -> None:
    """With the recurrence alone at work, a dropped unit is heard at no later step."""
    stack = Stack("tanh", 2, 2, 1, 0.5, Style(variational=True))
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            parameter.copy_(torch.eye(2) if "weight" in name else torch.zeros(2))
    x = torch.zeros(40, 3, 2)
    x[:, 0] = 1.0
    out, _ = stack(x)
    silent = out[:, 1] == 0
    assert silent.any()
    assert not silent.all()
    assert torch.equal(out[:, 2] == 0, silent)
