"""Recurrent stacks against torch's own multi-layer, packed LSTM and GRU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from transduce.models.decoders.recurrent import RecurrentDecoderBlueprint
from transduce.models.interface import Bank
from transduce.nn.attend import GeneralAttention
from transduce.nn.recurrent import Bidirectional, Hidden, Stack
from transduce.nn.steps import Cell

CELLS: tuple[Cell, ...] = ("lstm", "gru")
LENGTHS = torch.tensor([7, 1, 4, 6])
INPUTS, WIDTH, LAYERS = 5, 6, 3


def reference(cell: Cell, both: bool) -> nn.LSTM | nn.GRU:
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    width = WIDTH // 2 if both else WIDTH
    return kind(INPUTS, width, LAYERS, batch_first=True, bidirectional=both)


def copy_layer(source: nn.RNNBase, depth: int, suffix: str, target: nn.Module) -> None:
    """Copy one layer of one direction out of torch's module into a module of one layer."""
    for name, parameter in target.named_parameters():
        parameter.data.copy_(source.get_parameter(name.replace("_l0", f"_l{depth}{suffix}")))


def stack_like(theirs: nn.RNNBase, cell: Cell) -> Stack:
    ours = Stack(cell, INPUTS, WIDTH, LAYERS, 0.0)
    for depth, part in enumerate(ours.layers):
        copy_layer(theirs, depth, "", part)
    return ours


@pytest.mark.parametrize("cell", CELLS)
def test_stack_equals_torch(cell: Cell) -> None:
    torch.manual_seed(1)
    theirs = reference(cell, both=False)
    ours = stack_like(theirs, cell)
    x = torch.randn(4, 7, INPUTS)
    out, state = ours(x)
    expected, last = theirs(x)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    output, memory = last if cell == "lstm" else (last, last[..., :0])
    torch.testing.assert_close(state.output, output.transpose(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(state.cell, memory.transpose(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
def test_stack_goes_on_from_a_state_as_torch_does(cell: Cell) -> None:
    torch.manual_seed(2)
    theirs = reference(cell, both=False)
    ours = stack_like(theirs, cell)
    x, output = torch.randn(4, 7, INPUTS), torch.randn(4, LAYERS, WIDTH)
    memory = torch.randn(4, LAYERS, WIDTH if cell == "lstm" else 0)
    out, _ = ours(x, Hidden(output, memory))
    before = [part.transpose(0, 1).contiguous() for part in (output, memory)]
    expected, _ = theirs(x, tuple(before) if cell == "lstm" else before[0])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def ragged(theirs: nn.RNNBase, x: Tensor) -> Tensor:
    """Read rows of unequal length with torch's packed sequences, the exact reference."""
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    out: Tensor
    out, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    return out


@pytest.mark.parametrize("cell", CELLS)
def test_bidirectional_equals_torch_packed(cell: Cell) -> None:
    torch.manual_seed(3)
    theirs = reference(cell, both=True)
    ours = Bidirectional(cell, INPUTS, WIDTH, LAYERS, 0.0)
    for depth in range(LAYERS):
        copy_layer(theirs, depth, "", ours.forwards[depth])
        copy_layer(theirs, depth, "_reverse", ours.backwards[depth])
    x = torch.randn(4, 7, INPUTS, requires_grad=True)
    real = (torch.arange(7) < LENGTHS[:, None])[..., None]
    out, expected = ours(x, LENGTHS), ragged(theirs, x)
    torch.testing.assert_close(out * real, expected * real, atol=1e-5, rtol=0)
    weight = torch.randn_like(expected) * real
    (mine,) = torch.autograd.grad((out * weight).sum(), x)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=0)


def test_decoder_equals_the_formulas() -> None:
    """h~ = tanh(W [s; c]) after an LSTM that begins from the source (Luong 2015, 3; Cho 2014)."""
    torch.manual_seed(4)
    blueprint = RecurrentDecoderBlueprint(embedding=INPUTS, width=WIDTH, layers=2, dropout=0.0)
    decoder, memory = blueprint.build(9, 4), torch.randn(2, 3, 4)
    bank = Bank(memory, torch.ones(2, 3, dtype=torch.bool), torch.randn(2, 4))
    tokens = torch.randint(0, 9, (2, 5))
    out = decoder(tokens, {"source": bank})
    theirs = nn.LSTM(INPUTS, WIDTH, 2, batch_first=True)
    for depth, part in enumerate(decoder.stack.layers):
        for name, value in part.named_parameters():
            theirs.get_parameter(name.replace("_l0", f"_l{depth}")).data.copy_(value)
    first = torch.tanh(decoder.bridge(bank.summary)).view(2, 2, WIDTH).transpose(0, 1).contiguous()
    states, _ = theirs(decoder.embedding(tokens), (first, torch.zeros_like(first)))
    assert isinstance(decoder.connection, GeneralAttention)
    assert isinstance(decoder.combine, nn.Linear)
    scores = torch.einsum("btq,qd,bsd->bts", states, decoder.connection.key.weight, memory)
    attention = scores.softmax(-1)
    both = torch.cat([states, attention @ memory], -1)
    features = torch.tanh(both @ decoder.combine.weight.T + decoder.combine.bias)
    torch.testing.assert_close(out.features, features, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.attention, attention, atol=1e-5, rtol=0)
