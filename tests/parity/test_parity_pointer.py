"""The pointer-generator against See (2017), written as plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from transduce.models.interface import Bank, Readout
from transduce.models.pointer import PointerGenerator
from transduce.sequences import Sequences

WIDTH, MEMORY, SYMBOLS, SOURCES, WIDE, TOKENS, POSITIONS = 4, 5, 7, 2, 3, 4, 5
NEW = 2
LENGTHS = (5, 2)


def dot(x: Tensor, y: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True))


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def by_loops(head: PointerGenerator, features: Tensor, states: Tensor, ids: Tensor) -> list[float]:
    """Return p(w) for one position of one row; ``states`` and ``ids`` are real ones alone."""
    keys = states @ head.attention.key.weight.double().T
    weights = softmax([dot(features, key) / math.sqrt(WIDTH) for key in keys])
    context = sum(w * state for w, state in zip(weights, states, strict=True))
    assert isinstance(context, Tensor)
    logit = dot(head.gate.weight[0], features) + dot(head.hint.weight[0], context)
    generate = 1 / (1 + math.exp(-logit - float(head.gate.bias)))
    table = zip(head.words.weight, head.words.bias, strict=True)
    said = [generate * p for p in softmax([dot(row, features) + float(b) for row, b in table])]
    said += [0.0] * NEW
    for weight, symbol in zip(weights, ids.tolist(), strict=True):
        said[symbol] += (1 - generate) * weight
    return said


def made() -> tuple[PointerGenerator, Bank, Tensor]:
    """Make a head and sources with some of the symbols of the vocabulary and one behind it."""
    torch.manual_seed(1)
    head = PointerGenerator(WIDTH, MEMORY, nn.Embedding(SYMBOLS, WIDTH), tied=False, slots=NEW)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    states = torch.randn(SOURCES, POSITIONS, MEMORY)
    ids = torch.tensor([[1, SYMBOLS, 3, 1, SYMBOLS], [SYMBOLS, 2, 0, SYMBOLS + 1, 0]])
    mask = torch.arange(POSITIONS) < torch.tensor(LENGTHS)[:, None]
    features = torch.randn(SOURCES * WIDE, TOKENS, WIDTH, requires_grad=True)
    return head, Bank(states, mask, states[:, 0], ids=ids), features


@torch.no_grad()
def test_probabilities_equal_the_formula() -> None:
    head, bank, features = made()
    assert bank.ids is not None
    found = head(Readout(features), head.start({"source": bank})).exp()
    for row in range(SOURCES * WIDE):
        source = row // WIDE
        size = LENGTHS[source]
        states, ids = bank.states[source, :size].double(), bank.ids[source, :size]
        for place in range(TOKENS):
            wanted = by_loops(head, features[row, place].double(), states, ids)
            assert found[row, place].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_probabilities(smoothing: float) -> None:
    """Same sums and same gradients; smoothing spreads what the vocabulary says."""
    head, bank, features = made()
    symbols = torch.randint(0, SYMBOLS + 1, (SOURCES * WIDE, TOKENS))
    labels = Sequences(symbols, torch.tensor([4, 1, 3, 4, 2, 4]))
    assert (symbols[labels.mask()] == SYMBOLS).any()
    out, source = Readout(features), head.start({"source": bank})
    real = labels.mask()
    chosen = head(out, source).gather(2, labels.data[..., None])[..., 0][real].sum()
    uniform = head.words(out, None).mean(2)[real].sum()
    wanted = -(1 - smoothing) * chosen - smoothing * uniform
    loss, nll = head.loss(out, source, labels, smoothing)
    torch.testing.assert_close(loss, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(nll, -chosen.detach(), atol=1e-4, rtol=0)
    assert not nll.requires_grad
    leaves = [features, *head.parameters()]
    found = torch.autograd.grad(loss, leaves, retain_graph=True)
    for mine, theirs in zip(found, torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
