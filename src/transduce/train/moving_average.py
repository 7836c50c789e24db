"""A moving average of the weights, which is often better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from transduce.nn.addition import learned
from transduce.train.shares import own


class MovingAverage:
    """The exponential moving average of what a model learns (Polyak & Juditsky 1992).

    After update t it keeps (1 + t) / (10 + t) of itself, or ``decay`` if that is less, so that a
    short run does not remember where it began. Of weights that are shared out over processes each
    averages its own rows.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {
            name: own(parameter).detach().clone() for name, parameter in learned(model).items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update ``step``."""
        kept = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.values.values()),
            [own(p).detach() for p in learned(model).values()],
            1 - kept,
        )

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the mean weights within the block."""
        own = learned(model)
        kept = {name: parameter.detach().clone() for name, parameter in own.items()}
        put(self.values, own)
        try:
            yield
        finally:
            put(kept, own)


@torch.no_grad()
def put(values: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Give parameters the values of their names."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
