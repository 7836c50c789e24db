"""Attention between recurrent decoder and encoder against the papers, written as plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from transduce.nn.attend import (
    AdditiveAttention,
    Attention,
    DotAttention,
    GeneralAttention,
)

SOURCES, HYPOTHESES, TOKENS, POSITIONS = 2, 3, 4, 5
QUERY, MEMORY, HIDDEN = 6, 7, 8
LENGTHS = (5, 2)

Score = Callable[[Tensor, Tensor], float]


def dot(query: Tensor, state: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(query, state, strict=True))


def general(part: GeneralAttention) -> Score:
    """score = s . W h (Luong 2015, 3.1)."""
    weight = part.key.weight.detach().double()
    return lambda query, state: dot(query, torch.stack([(row * state).sum() for row in weight]))


def additive(part: AdditiveAttention) -> Score:
    """score = v . tanh(U s + W h) (Bahdanau 2015, A.1.2), with a bias in the hidden layer."""
    u, b = part.query.weight.detach().double(), part.query.bias.detach().double()
    w, v = part.key.weight.detach().double(), part.energy.weight.detach().double()[0]

    def score(query: Tensor, state: Tensor) -> float:
        total = 0.0
        for unit in range(len(v)):
            inner = dot(u[unit], query) + float(b[unit]) + dot(w[unit], state)
            total += float(v[unit]) * math.tanh(inner)
        return total

    return score


def by_loops(score: Score, queries: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return contexts and weights, one query at a time, over the real positions alone."""
    contexts = torch.zeros(*queries.shape[:2], states.shape[2], dtype=torch.float64)
    weights = torch.zeros(*queries.shape[:2], states.shape[1], dtype=torch.float64)
    for row in range(queries.shape[0]):
        source = row // HYPOTHESES
        real = states[source, : LENGTHS[source]].double()
        for step in range(queries.shape[1]):
            energies = [math.exp(score(queries[row, step].double(), state)) for state in real]
            for place, energy in enumerate(energies):
                weights[row, step, place] = energy / sum(energies)
                contexts[row, step] += energy / sum(energies) * real[place]
    return contexts, weights


def attend(part: Attention, queries: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    mask = torch.arange(POSITIONS) < torch.tensor(LENGTHS)[:, None]
    source = part.prepare(states, mask, states[:, 0])
    context, weights, _ = part(queries, source, part.begin(source, len(queries)))
    return context, weights


def cases() -> list[tuple[Attention, Score, int]]:
    torch.manual_seed(1)
    product = GeneralAttention(QUERY, MEMORY)
    network = AdditiveAttention(QUERY, MEMORY, HIDDEN)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return [
        (DotAttention(), dot, QUERY),
        (product, general(product), MEMORY),
        (network, additive(network), MEMORY),
    ]


@pytest.mark.parametrize("case", range(3), ids=["dot", "general", "additive"])
def test_attention_equals_the_formula(case: int) -> None:
    part, score, width = cases()[case]
    queries = torch.randn(SOURCES * HYPOTHESES, TOKENS, QUERY)
    states = torch.randn(SOURCES, POSITIONS, width)
    context, weights = attend(part, queries, states)
    contexts, expected = by_loops(score, queries, states)
    torch.testing.assert_close(weights.double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(context.double(), contexts, atol=1e-5, rtol=0)
    assert (weights[HYPOTHESES:, :, LENGTHS[1] :] == 0).all()


@pytest.mark.parametrize("limit", [1, SOURCES * POSITIONS * HIDDEN * 5])
def test_additive_attention_in_parts_equals_the_whole(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """With the table too large to be alive at once: same values, same gradients."""
    part, _, _ = cases()[2]
    queries = torch.randn(SOURCES * HYPOTHESES, TOKENS, QUERY, requires_grad=True)
    states = torch.randn(SOURCES, POSITIONS, MEMORY, requires_grad=True)
    leaves = [queries, states, *part.parameters()]
    whole, _ = attend(part, queries, states)
    expected = torch.autograd.grad(whole.square().sum(), leaves)
    monkeypatch.setattr(AdditiveAttention, "LIMIT", limit)
    parts, _ = attend(part, queries, states)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    found = torch.autograd.grad(parts.square().sum(), leaves)
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)
