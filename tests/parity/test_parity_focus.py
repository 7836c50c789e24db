"""Windows, normalisers and the further scores against the papers, written as plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from transduce.nn.attend import (
    AttentionBlueprint,
    Connection,
    DotAttentionBlueprint,
    GeneralAttentionBlueprint,
    LocalMonotonicBlueprint,
    LocalPredictiveBlueprint,
    LocationAttentionBlueprint,
    MultiHeadAttentionBlueprint,
    PerceptronAttentionBlueprint,
    ScaledDotAttentionBlueprint,
    entmax15,
    sparsemax,
)

ROWS, TOKENS, POSITIONS, WIDTH, REACH = 2, 4, 6, 6, 2
LENGTHS = (6, 3)

Score = Callable[[Connection, Tensor, Tensor, int], float]


def weight(part: Connection, name: str) -> Tensor:
    return part.get_parameter(name).detach()


def dot(_: Connection, query: Tensor, state: Tensor, place: int) -> float:
    return float(query @ state)


def scaled_dot(_: Connection, query: Tensor, state: Tensor, place: int) -> float:
    """s . h / sqrt(D) (Vaswani 2017, 3.2.1)."""
    return float(query @ state) / math.sqrt(len(query))


def general(part: Connection, query: Tensor, state: Tensor, place: int) -> float:
    """s . W h (Luong 2015, 3.1)."""
    return float(query @ (weight(part, "key.weight") @ state))


def perceptron(part: Connection, query: Tensor, state: Tensor, place: int) -> float:
    """v . tanh(A tanh(U s + b + W h) + c)."""
    first = weight(part, "query.weight") @ query + weight(part, "query.bias")
    first = torch.tanh(first + weight(part, "key.weight") @ state)
    second = weight(part, "deeper.0.weight") @ first + weight(part, "deeper.0.bias")
    return float(weight(part, "energy.weight")[0] @ torch.tanh(second))


def location(part: Connection, query: Tensor, state: Tensor, place: int) -> float:
    """The place's entry of W s (Luong 2015, 3.1)."""
    return float(weight(part, "place.weight")[place] @ query)


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def by_bisection(shape: Callable[[float], float]) -> Callable[[list[float]], list[float]]:
    """Find the threshold at which what ``shape`` makes of the scores above it adds up to 1."""

    def normalise(scores: list[float]) -> list[float]:
        low, high = min(scores) - 5, max(scores) + 5
        for _ in range(200):
            middle = (low + high) / 2
            above = sum(shape(max(score - middle, 0.0)) for score in scores) > 1
            low, high = (middle, high) if above else (low, middle)
        return [shape(max(score - low, 0.0)) for score in scores]

    return normalise


# p = [z - t]+ (Martins & Astudillo 2016, 2.2) and p = [(z - t) / 2]+ squared (Peters 2019, 3.2)
NORMALISERS = {
    "softmax": softmax,
    "sparsemax": by_bisection(lambda above: above),
    "entmax15": by_bisection(lambda above: (above / 2) ** 2),
}


def window(kind: str, part: Connection, query: Tensor, step: int, size: int) -> list[float]:
    """Return the factor of each position's weight, zero outside of the window (Luong 2015, 3.2)."""
    if kind == "local_m":
        centre = min(step, size - 1)
        return [float(abs(place - centre) <= REACH) for place in range(size)]
    if kind == "local_p":
        hidden = torch.tanh(weight(part, "focus.window.hidden.weight") @ query)
        predicted = float(weight(part, "focus.window.centre.weight")[0] @ hidden)
        centred = size / (1 + math.exp(-predicted))
        gauss = [math.exp(-((n - centred) ** 2) / (2 * (REACH / 2) ** 2)) for n in range(size)]
        return [g if abs(n - centred) <= REACH else 0.0 for n, g in enumerate(gauss)]
    return [1.0] * size


def expected(
    blueprint: AttentionBlueprint, part: Connection, score: Score, queries: Tensor, states: Tensor
) -> Tensor:
    weights = torch.zeros(ROWS, TOKENS, POSITIONS, dtype=torch.float64)
    for row, size in enumerate(LENGTHS):
        for step in range(TOKENS):
            query = queries[row, step]
            factor = window(blueprint.window.kind, part, query, step, size)
            inside = [n for n in range(size) if factor[n] > 0]
            scores = [score(part, query, states[row, n], n) for n in inside]
            if blueprint.normaliser == "softmax":
                found = [factor[n] * math.exp(s) for n, s in zip(inside, scores, strict=True)]
                found = [weight / sum(found) for weight in found]
            else:
                scores = [s + math.log(factor[n]) for n, s in zip(inside, scores, strict=True)]
                found = NORMALISERS[blueprint.normaliser](scores)
            weights[row, step, inside] = torch.tensor(found, dtype=torch.float64)
    return weights


MONOTONIC, PREDICTIVE = LocalMonotonicBlueprint(reach=REACH), LocalPredictiveBlueprint(reach=REACH)
CASES: list[tuple[AttentionBlueprint, Score]] = [
    (DotAttentionBlueprint(), dot),
    (DotAttentionBlueprint(normaliser="sparsemax"), dot),
    (DotAttentionBlueprint(normaliser="entmax15"), dot),
    (ScaledDotAttentionBlueprint(), scaled_dot),
    (GeneralAttentionBlueprint(window=MONOTONIC), general),
    (GeneralAttentionBlueprint(window=PREDICTIVE), general),
    (GeneralAttentionBlueprint(window=PREDICTIVE, normaliser="entmax15"), general),
    (GeneralAttentionBlueprint(window=MONOTONIC, normaliser="sparsemax"), general),
    (PerceptronAttentionBlueprint(width=5), perceptron),
    (LocationAttentionBlueprint(longest=9), location),
    (LocationAttentionBlueprint(longest=6, window=PREDICTIVE), location),
]


def attend(part: Connection, queries: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    mask = torch.arange(POSITIONS) < torch.tensor(LENGTHS)[:, None]
    source = part.prepare(states, mask, states[:, 0])
    context, weights, _ = part(queries, source, part.begin(source, ROWS))
    return context, weights


@pytest.mark.parametrize(
    ("blueprint", "score"), CASES, ids=[str(blueprint) for blueprint, _ in CASES]
)
def test_attention_equals_the_formula(blueprint: AttentionBlueprint, score: Score) -> None:
    torch.manual_seed(1)
    part = blueprint.build(WIDTH, WIDTH).double()
    queries = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    states = torch.randn(ROWS, POSITIONS, WIDTH, dtype=torch.float64)
    context, weights = attend(part, queries, states)
    wanted = expected(blueprint, part, score, queries, states)
    torch.testing.assert_close(weights, wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(context, wanted @ states, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_sparse_normalisers_equal_bisection(name: str) -> None:
    torch.manual_seed(2)
    ours = {"sparsemax": sparsemax, "entmax15": entmax15}[name]
    everything = torch.ones(1, 1, dtype=torch.bool)
    ties = torch.tensor([[0.3, 0.3, 0.3, -9.0], [0.0, 1.0, 2.0, 1.0]], dtype=torch.float64)
    for scores in (ties, *torch.randn(20, 1, 7, dtype=torch.float64) * 3):
        wanted = [NORMALISERS[name](row) for row in scores.tolist()]
        found = ours(scores, everything)
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_multihead_attention_equals_the_formula() -> None:
    """Concat(head_i) W_O, head_i = softmax(q_i K_i / sqrt(d)) V_i (Vaswani 2017, 3.2.2)."""
    torch.manual_seed(3)
    part = MultiHeadAttentionBlueprint(heads=2).build(WIDTH, 5).double()
    queries = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    states = torch.randn(ROWS, POSITIONS, 5, dtype=torch.float64)
    context, weights = attend(part, queries, states)
    maps = {name: part.get_submodule(name) for name in ("query", "key", "value", "out")}
    for row, size in enumerate(LENGTHS):
        query = maps["query"](queries[row])
        keys, values = maps["key"](states[row, :size]), maps["value"](states[row, :size])
        halves = [slice(0, 3), slice(3, 6)]
        heads = [(query[:, h] @ keys[:, h].T / math.sqrt(3)).softmax(-1) for h in halves]
        joined = torch.cat([w @ values[:, h] for w, h in zip(heads, halves, strict=True)], -1)
        torch.testing.assert_close(context[row], maps["out"](joined))
        torch.testing.assert_close(weights[row, :, :size], (heads[0] + heads[1]) / 2)
        assert (weights[row, :, size:] == 0).all()
