"""Randomness as a function: the same key gives the same numbers, wherever one asks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6


def scramble(values: NDArray[np.integer], *key: int) -> NDArray[np.uint64]:
    """Return 64 random bits for each value (SplitMix64, Steele et al. 2014)."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = _mix(state + np.uint64(part % 2**64))
    return _mix(_mix(values.astype(np.uint64)) + state)


def uniform(keys: NDArray[np.integer], count: int, *key: int) -> NDArray[np.float64]:
    """Return a row of ``count`` random numbers from [0, 1) for each of the keys."""
    rows = scramble(keys, *key)[:, None] + _mix(np.arange(count, dtype=np.uint64))
    return (_mix(rows) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(positions: NDArray[np.integer], size: int, *key: int) -> NDArray[np.int64]:
    """Return what stands at the given positions of a random permutation of 0 ... ``size`` - 1.

    No other position is looked at: a Feistel network (Luby and Rackoff 1988) on a power of four
    that covers ``size``, repeated where it leads out of it.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64(2 ** int(half) - 1)

    def once(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> half, values & mask
        for number in range(ROUNDS):
            left, right = right, left ^ (scramble(right, *key, number) & mask)
        return (left << half) | right

    found = once(positions.astype(np.uint64))
    while (outside := found >= size).any():
        found[outside] = once(found[outside])
    return found.astype(np.int64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
