"""A quantile of more numbers than memory should hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.number[Any]]


def upper_quantile(blocks: Iterator[Numbers], count: int, share: float) -> float:
    """Return what ``numpy.quantile`` returns for all blocks together, ``count`` numbers in all.

    Only the numbers that are no smaller are kept, and one block: for shares near 1.
    """
    place = share * (count - 1)
    below = int(place)  # the quantile lies between this one, in order of size, and the next
    kept = count - below
    largest: Numbers = np.empty(0)
    for block in blocks:
        largest = np.concatenate([largest, block])
        if len(largest) > kept:
            largest = np.partition(largest, len(largest) - kept)[-kept:]
    ordered = np.sort(largest)
    # The same line between the two, by the same rule, so that not a bit is different.
    return float(np.quantile(ordered[:2], place - below))
