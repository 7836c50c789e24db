"""Hard monotonic attention against the paper, written as plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from transduce.nn.attend import MonotonicAttention, MonotonicAttentionBlueprint
from transduce.nn.attend.monotonic import walk

ROWS, TOKENS, POSITIONS, WIDTH = 2, 5, 7, 6
LENGTHS = (7, 4)


def attention(noise: float, seed: int) -> MonotonicAttention:
    torch.manual_seed(seed)
    part = MonotonicAttentionBlueprint(width=5, noise=noise, bias=-0.4).build(WIDTH, WIDTH).double()
    assert isinstance(part, MonotonicAttention)
    with torch.no_grad():
        for weight in (part.query.weight, part.key.weight, part.gain):
            weight.mul_(4)
    return part


def inputs(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    queries = torch.randn(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    states = torch.randn(ROWS, POSITIONS, WIDTH, dtype=torch.float64)
    return queries, states, torch.arange(POSITIONS) < torch.tensor(LENGTHS)[:, None]


def energy(part: MonotonicAttention, query: Tensor, state: Tensor) -> float:
    """g v / |v| . tanh(W s + V h + b) + r."""
    weights = {name: weight.detach() for name, weight in part.named_parameters()}
    hidden = weights["query.weight"] @ query + weights["query.bias"] + weights["key.weight"] @ state
    v = weights["energy.weight"][0]
    score = float(v @ torch.tanh(hidden)) / math.sqrt(float(v @ v))
    return float(weights["gain"]) * score + float(weights["bias"])


def expected(stops: list[list[float]]) -> list[list[float]]:
    """Return all alignments by the paper's recurrence, from position to position."""
    before = [1.0] + [0.0] * (len(stops[0]) - 1)
    found = []
    for p in stops:
        alignment: list[float] = []
        for j, begun in enumerate(before):
            came = (1 - p[j - 1]) * alignment[j - 1] / p[j - 1] if j else 0.0
            alignment.append(p[j] * (came + begun))
        found.append(alignment)
        before = alignment
    return found


def hard(energies: list[list[float]]) -> list[list[float]]:
    """Return all alignments by algorithm 1, which inspects one position after the other."""
    at: int | None = 0
    found = []
    for row in energies:
        at = next((j for j in range(at, len(row)) if row[j] > 0), None) if at is not None else None
        found.append([float(j == at) for j in range(len(row))])
    return found


def alignments(
    part: MonotonicAttention, queries: Tensor, states: Tensor, drawn: Tensor
) -> list[list[float]]:
    """Return the paper's alignments of one source without padding."""
    energies = [[energy(part, query, state) for state in states] for query in queries]
    if not part.training:
        return hard(energies)
    noisy = zip(energies, drawn.tolist(), strict=True)
    return expected(
        [[1 / (1 + math.exp(-e - n)) for e, n in zip(*pair, strict=True)] for pair in noisy]
    )


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_alignments_equal_the_paper(training: bool, noise: float) -> None:
    ways = set()
    for seed in range(8):
        part = attention(noise, seed).train(training)
        queries, states, mask = inputs(seed)
        source = part.prepare(states, mask, states[:, 0])
        torch.manual_seed(seed)
        context, weights, trail = part(queries, source, part.begin(source, ROWS))
        torch.manual_seed(seed)
        drawn = torch.randn(ROWS, TOKENS, POSITIONS, dtype=torch.float64) * noise
        wanted = torch.zeros(ROWS, TOKENS, POSITIONS, dtype=torch.float64)
        for row, size in enumerate(LENGTHS):
            given = queries[row], states[row, :size], drawn[row, :, :size]
            wanted[row, :, :size] = torch.tensor(alignments(part, *given), dtype=torch.float64)
            ways.add(tuple(wanted[row].argmax(-1).tolist()))
        torch.testing.assert_close(weights, wanted)
        torch.testing.assert_close(context, wanted @ states)
        torch.testing.assert_close(trail.past, wanted[:, -1])
    assert len(ways) > 5, "the walks differ"
    assert any(len(set(way)) > 2 for way in ways), "and some go on"


@pytest.mark.parametrize("chance", [1e-3, 0.5, 1.0 - 1e-6])
def test_long_sources_do_not_underflow(chance: float) -> None:
    """Products of 1 - p are far below the least number here, and 1 / p or 1 / (1 - p) beyond it."""
    torch.manual_seed(4)
    stop = torch.rand(3, 1, 3000, dtype=torch.float64).mul(0.2).add(chance).clamp(max=1 - 1e-9)
    before = torch.zeros(1, 3000, dtype=torch.float64)
    before[0, 0] = 1
    found = begin = before.float().requires_grad_()
    for row in stop:
        found, before = walk(found, row.float()), walk_by_steps(before, row)
    assert before.sum() > 0.5
    torch.testing.assert_close(found.double(), before, atol=1e-6, rtol=1e-3)
    (slope,) = torch.autograd.grad(found.square().sum(), begin)
    assert slope.isfinite().all()


def walk_by_steps(before: Tensor, stop: Tensor) -> Tensor:
    coming, found = torch.zeros(len(before), dtype=before.dtype), []
    for j in range(before.shape[1]):
        coming = coming * (1 - stop[:, j - 1]) + before[:, j] if j else before[:, 0]
        found.append(coming * stop[:, j])
    return torch.stack(found, 1)


def test_its_gradient_is_that_of_the_recurrence() -> None:
    torch.manual_seed(5)
    before = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    stop = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(walk, (before, stop))
