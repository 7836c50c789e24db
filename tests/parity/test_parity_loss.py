"""The fused projection and cross-entropy against torch's, in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transduce.nn import loss as module
from transduce.nn.loss import linear_cross_entropy

WIDTH, SYMBOLS = 8, 23


class Result(NamedTuple):
    total: Tensor
    nll: Tensor
    features: Tensor
    weight: Tensor
    bias: Tensor


def inputs(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(rows)
    features, weight = torch.randn(rows, WIDTH), torch.randn(SYMBOLS, WIDTH)
    return features, weight, torch.randn(SYMBOLS), torch.randint(0, SYMBOLS, (rows,))


def ours(rows: int, smoothing: float) -> Result:
    *values, labels = inputs(rows)
    features, weight, bias = (value.requires_grad_() for value in values)
    total, nll = linear_cross_entropy(features, weight, bias, labels, smoothing)
    return Result(total.detach(), nll, *torch.autograd.grad(0.5 * total, (features, weight, bias)))


def reference(rows: int, smoothing: float) -> Result:
    *values, labels = inputs(rows)
    features, weight, bias = (value.double().requires_grad_() for value in values)
    logits = F.linear(features, weight, bias)
    total = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    nll = F.cross_entropy(logits, labels, reduction="sum").detach()
    return Result(total.detach(), nll, *torch.autograd.grad(0.5 * total, (features, weight, bias)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("rows", "chunk"), [(1, 16), (16, 16), (37, 16), (48, 16), (5, 1)])
def test_value_and_gradients_equal_torch(
    monkeypatch: pytest.MonkeyPatch, rows: int, chunk: int, smoothing: float
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    for found, expected in zip(ours(rows, smoothing), reference(rows, smoothing), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-6)


def test_more_rows_than_one_chunk_as_it_ships() -> None:
    rows = 2 * module.CHUNK + 3
    for found, expected in zip(ours(rows, 0.1), reference(rows, 0.1), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bf16_autocast_stays_near(smoothing: float) -> None:
    """bf16 keeps 8 bits: products of 8 numbers of about one are right to a few percent."""
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(600, smoothing)
    assert all(part.dtype == torch.float32 for part in found)
    for part, expected in zip(found, reference(600, smoothing), strict=True):
        error = (part.double() - expected).norm() / expected.norm()
        assert error < 0.01


def test_huge_logits_neither_overflow_nor_lose_the_loss() -> None:
    features, weight = torch.tensor([[1000.0], [-1000.0]]), torch.tensor([[1.0], [0.0], [-1.0]])
    total, nll = linear_cross_entropy(
        features, weight, torch.zeros(3), torch.tensor([1, 0]), smoothing=0.0
    )
    assert total.item() == nll.item() == 3000.0
