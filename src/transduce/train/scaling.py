"""What losses are multiplied with while gradients are computed (Micikevicius 2018).

Small gradients are zero in float16, so a loss is made as large as it may be. A gradient that is too
large then is computed again with half the scale: no update is left out to find it.
"""

from __future__ import annotations

from typing import Final

import torch

from transduce.train.precision import Precision

FIRST: Final = 2.0**16
MOST: Final = 2.0**24
EVERY: Final = 2000  # updates from one attempt with twice the scale to the next


def scale(before: float, step: int, precision: Precision) -> float:
    """Return the scale for the update after ``step``, given that of the one before; 1: none.

    A power of 2 rounds nothing.
    """
    if precision.dtype != torch.float16:
        return 1.0
    if step == 0:
        return FIRST
    return min(2 * before, MOST) if step % EVERY == 0 else before
