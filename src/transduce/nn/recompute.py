"""Activations that are computed again in the backward pass instead of being kept (Chen 2016).

A stack then keeps what enters each of its layers, and the inside of one layer at a time: much less
memory for one more forward pass, and the same gradients bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import ParamSpec, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from transduce.nn.dropout import draw_twice

P = ParamSpec("P")
R = TypeVar("R")

_wanted: ContextVar[bool] = ContextVar("recompute", default=False)


@contextmanager
def recomputing(wanted: bool) -> Iterator[None]:
    """Keep none of the activations of what is ``recomputable`` within the block, if ``wanted``."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def recomputable(layer: Callable[P, R]) -> Callable[P, R]:
    """Return a layer that keeps nothing but what enters it where that is wanted."""
    if not _wanted.get() or not torch.is_grad_enabled():
        return layer
    return partial(checkpoint, layer, use_reentrant=False, context_fn=draw_twice)
