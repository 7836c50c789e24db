"""Packed weights answer as plain ones do, and only where nothing but an answer is wanted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transduce.models.heads import LinearHead
from transduce.models.interface import Readout
from transduce.nn.packed import FEW, Linear, Packed, pack

pytestmark = pytest.mark.skipif(
    not Packed.serves(torch.zeros(1)), reason="oneDNN's packed products are not here"
)


def packed(inputs: int = 24, outputs: int = 40, bias: bool = True) -> Linear:
    torch.manual_seed(1)
    layer = Linear(inputs, outputs, bias)
    pack(layer)
    return layer


@pytest.mark.parametrize("shape", [(1,), (FEW - 1,), (FEW,), (64,), (3, 5), (2, 130)])
@pytest.mark.parametrize("bias", [True, False])
def test_answers_are_those_of_the_plain_map(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = packed(bias=bias), torch.randn(*shape, 24)
    with torch.no_grad():
        found = layer(x)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_packed_weight_is_what_is_read() -> None:
    layer, x = packed(), torch.randn(64, 24)
    with torch.no_grad():
        before = layer(x)
        layer.weight.zero_()
        assert torch.equal(layer(x), before)
        few = layer(x[: FEW - 1])
    assert torch.equal(few, layer.bias.expand_as(few)), "few rows take the ordinary way"


def test_gradients_and_other_types_take_the_ordinary_way() -> None:
    layer, x = packed(), torch.randn(64, 24, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert x.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_head_tied_to_the_embeddings_is_packed_too() -> None:
    embedding = nn.Embedding(40, 24)
    head = LinearHead(24, embedding, tied=True)
    features = torch.randn(8, 1, 24)
    with torch.no_grad():
        plain = head(Readout(features), None)
        pack(head)
        assert head.packed is not None
        torch.testing.assert_close(head(Readout(features), None), plain, atol=1e-6, rtol=1e-5)
    assert set(head.state_dict()) == {"bias", "weight"}, "what is packed is not saved"
    torch.testing.assert_close(plain.exp().sum(2), torch.ones(8, 1))
