from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.data.shuffle import permute, scramble

keys = st.tuples(st.integers(), st.integers(0, 1000))


@given(size=st.integers(1, 2000), key=keys)
def test_a_permutation_holds_everything_once(size: int, key: tuple[int, int]) -> None:
    assert sorted(permute(np.arange(size), size, *key)) == list(range(size))


@given(size=st.integers(1, 2000), key=keys, data=st.data())
def test_a_part_of_a_permutation_is_that_part(
    size: int, key: tuple[int, int], data: st.DataObject
) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1)))
    assert (permute(places, size, *key) == permute(np.arange(size), size, *key)[places]).all()


@pytest.mark.parametrize("size", [2, 3, 10, 50])
def test_every_place_gets_everything_equally_often(size: int) -> None:
    draws = 500
    found = np.array([permute(np.arange(size), size, seed, 7) for seed in range(draws)])
    counts = np.array([np.bincount(column, minlength=size) for column in found.T])
    expected = draws / size
    # Pearson's statistic, whose mean is its degrees of freedom.
    degrees = (size - 1) ** 2
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < degrees + 5 * np.sqrt(2 * degrees)


def test_bits_are_even_and_keys_matter() -> None:
    values = np.arange(10_000)
    bits = np.unpackbits(scramble(values, 1, 2).view(np.uint8)).reshape(-1, 64)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.03
    assert not (scramble(values, 1, 2) == scramble(values, 2, 1)).any()
    assert (scramble(values, -1) == scramble(values, 2**64 - 1)).all()


def test_the_numbers_never_change() -> None:
    """A run that resumes under another version of anything must see the same order."""
    assert scramble(np.arange(2), 3).tolist() == [3244069374069248626, 16300927847963470081]
    assert permute(np.arange(8), 8, 3).tolist() == [0, 6, 3, 7, 2, 4, 1, 5]
