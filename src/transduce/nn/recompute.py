"""Activations that are computed again in the backward pass instead of being kept (Chen 2016).

A stack then keeps what enters each of its layers, and the inside of one layer at a time: much less
memory for one more forward pass, and the same gradients bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from transduce.nn.dropout import draw_twice
from transduce.nn.tap import Tap, watching

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
    return partial(checkpoint, layer, use_reentrant=False, context_fn=partial(_twice, layer))


def _twice(
    layer: Callable[..., Any],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for now and for again: the same is drawn, and the same taps are watched.

    Who listened has left by then, and a kernel that hides a value is not the one that shows it.
    """
    now, draws = draw_twice()
    parts = layer.modules() if isinstance(layer, nn.Module) else ()
    taps = [part for part in parts if isinstance(part, Tap) and part.watched]
    return now, _both(draws, watching(taps))


@contextmanager
def _both(one: AbstractContextManager[None], other: AbstractContextManager[None]) -> Iterator[None]:
    with one, other:
        yield
