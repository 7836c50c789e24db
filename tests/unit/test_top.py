"""The best few scores, against sorting everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.problem import Problem
from transduce.search.top import CHUNK, rank, top

SIZES = st.one_of(st.integers(1, 40), st.integers(4 * CHUNK - 1, 30 * CHUNK))


@settings(max_examples=150, deadline=None)
@given(SIZES, st.integers(1, 9), st.integers(1, 400), st.floats(0, 0.99), st.integers(0, 99))
def test_is_the_head_of_a_stable_sort(
    size: int, count: int, levels: int, impossible: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (5, size), generator=generator) / -7
    scores[torch.rand(5, size, generator=generator) < impossible] = -torch.inf
    values, ids = top(scores, count)
    wanted, order = (part[:, :count] for part in rank(scores))
    assert torch.equal(values, wanted)
    possible = wanted > -torch.inf
    assert torch.equal(ids[possible], order[possible])


@pytest.mark.parametrize("size", [50, 3_000, 8_003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_vocabularies(size: int, dtype: torch.dtype) -> None:
    scores = torch.randn(40, size, generator=torch.Generator().manual_seed(0)).to(dtype)
    values, ids = top(scores.log_softmax(1), 6)
    wanted, order = rank(scores.log_softmax(1))
    assert torch.equal(values, wanted[:, :6])
    assert torch.equal(ids, order[:, :6])


@pytest.mark.parametrize("count", [1, 4])
def test_nan_is_an_error(count: int) -> None:
    scores = torch.zeros(3, 2_000)
    scores[1, 7] = torch.nan
    with pytest.raises(Problem, match="checkpoint"):
        top(scores, count)
