from __future__ import annotations

import pytest
import torch

from transduce.nn.dropout import MaskPool, drawing_from
from transduce.nn.recurrent import Bidirectional, Cell, Stack, layer

CELLS: tuple[Cell, ...] = ("lstm", "gru")


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
    weight = layer(cell, 3, 8).weight_hh_l0
    assert isinstance(weight, torch.Tensor)
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
