"""How often the host asks a device for what it has computed.

A CPU's numbers are at hand. A GPU is told what to do far ahead of what it does, and whoever asks
for a number waits until all of that is done; asked at every step, it stands still at every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import torch
from torch import Tensor

STEPS: Final = 8  # between two questions to a device that is not the CPU

_steps: ContextVar[int | None] = ContextVar("steps between questions", default=None)


@contextmanager
def asking_every(steps: int) -> Iterator[None]:
    """Ask once in ``steps`` steps within the block, whatever the device: for tests on a CPU."""
    token = _steps.set(steps)
    try:
        yield
    finally:
        _steps.reset(token)


def interval(device: torch.device) -> int:
    """Return the number of steps from one question to ``device`` to the next."""
    steps = _steps.get()
    if steps is not None:
        return steps
    return 1 if device.type == "cpu" else STEPS


def free(x: Tensor) -> bool:
    """Return whether the host may look at the numbers of ``x`` whenever that saves work."""
    return interval(x.device) == 1


def due(x: Tensor, size: int) -> bool:
    """Return whether to ask for ``x``, if ``size`` is one more at each step."""
    return size % interval(x.device) == 0
