"""Dropout whose randomness is a pure function of (seed, step), and cheap on a CPU.

torch's CPU generator costs 6.8 ms for a million elements, a multiplication 0.16 ms. A pool of
ready-made masks, of which every use takes a window at a random place and every step redraws a part,
makes dropout 12 to 15 times cheaper. Because the whole pool at step n follows from (seed, n), a
resumed run needs no saved random state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Mask = Float[Tensor, "size"]


class MaskPool:
    """Masks for the dropout layers of one training run, on the CPU.

    Call ``seek(step)`` before each update and not between forward and backward: autograd holds
    windows of the pool until then.
    """

    def __init__(self, seed: int, size: int = 1 << 24, parts: int = 32) -> None:
        self.seed, self.size, self.parts = seed, size, parts
        self.step = 0
        self._windows = random.Random()
        self._pools: dict[tuple[torch.dtype, float], Mask] = {}
        self.seek(0)

    def seek(self, step: int) -> None:
        """Be the pool of update number ``step``, whatever was before."""
        behind = step - self.step
        self.step = step
        self._windows.seed(f"{self.seed}/{step}")
        for key, pool in self._pools.items():
            if behind == 1:
                self._draw(pool, key[1], step % self.parts)
            else:
                self._fill(pool, key[1])

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a graph would draw but once
    def apply(self, x: Float[Tensor, "*shape"], rate: float) -> Float[Tensor, "*shape"]:
        """Drop elements with probability ``rate`` (rounded to 1/256) and scale up the rest."""
        key = (x.dtype, rate)
        if key not in self._pools:
            self._pools[key] = torch.empty(self.size, dtype=x.dtype)
            self._fill(self._pools[key], rate)
        pool, flat = self._pools[key], x.reshape(-1)
        if len(flat) <= self.size // 2:
            return (flat * self._window(pool, len(flat))).view(x.shape)
        pieces = [
            piece * self._window(pool, len(piece)) for piece in torch.split(flat, self.size // 2)
        ]
        return torch.cat(pieces).view(x.shape)

    def again(self) -> AbstractContextManager[None]:
        """Return a context that draws once more what is drawn from now on.

        Raises:
            RuntimeError: on entering it, the pool has moved to another step.
        """
        step, place = self.step, self._windows.getstate()

        @contextmanager
        def repeated() -> Iterator[None]:
            if self.step != step:
                raise RuntimeError(f"what was drawn at step {step} is gone at step {self.step}")
            reached = self._windows.getstate()
            self._windows.setstate(place)
            try:
                with drawing_from(self):
                    yield
            finally:
                self._windows.setstate(reached)

        return repeated()

    def _window(self, pool: Mask, size: int) -> Mask:
        start = self._windows.randrange(self.size - size)
        return pool[start : start + size]

    def _fill(self, pool: Mask, rate: float) -> None:
        for part in range(self.parts):
            self._draw(pool, rate, part)

    def _draw(self, pool: Mask, rate: float, part: int) -> None:
        """Write one part as it stands since the last step at which it was its turn."""
        drawn = self.step - (self.step - part) % self.parts
        generator = torch.Generator()
        generator.manual_seed(random.Random(f"{self.seed}/{rate}/{part}/{drawn}").getrandbits(63))
        size = self.size // self.parts
        # the full range has to be asked for: by default the sign bit stays zero
        words = torch.empty(size // 8, dtype=torch.int64).random_(
            -(2**63), None, generator=generator
        )
        dropped = min(max(round(rate * 256), 1), 255)  # never nothing or everything
        kept = words.view(torch.uint8) >= dropped
        target = pool[part * size : (part + 1) * size]
        target.copy_(kept).mul_(256 / (256 - dropped))


_pool: ContextVar[MaskPool | None] = ContextVar("mask_pool", default=None)


@contextmanager
def drawing_from(pool: MaskPool) -> Iterator[None]:
    """Let every ``Dropout`` on the CPU draw from ``pool`` within the block."""
    token = _pool.set(pool)
    try:
        yield
    finally:
        _pool.reset(token)


def draw_twice() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts for what is computed now and once more: both draw the same from the pool."""
    pool = _pool.get()
    return nullcontext(), nullcontext() if pool is None else pool.again()


class Dropout(nn.Module):
    """Sets elements to zero at random in training and scales the rest up (Srivastava 2014)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop, in training; return ``x`` otherwise."""
        if not self.training or self.rate == 0:
            return x
        pool = _pool.get()
        if pool is None or x.device.type != "cpu":
            return F.dropout(x, self.rate)
        dropped: Tensor = pool.apply(x, self.rate)
        return dropped

    def mask(self, x: Float[Tensor, "N *T E"], width: int) -> Float[Tensor, "N D"] | None:
        """Return what all positions of these rows are multiplied with: nothing."""
        return None

    def hold(self, x: Float[Tensor, "N *T E"], width: int) -> Callable[[Tensor], Tensor]:
        """Return what drops from these rows' positions, given one after the other."""
        return self

    def extra_repr(self) -> str:
        """Show the rate when a model is printed."""
        return f"{self.rate}"


class RowDropout(Dropout):
    """One mask for each row, the same at all of its positions (Gal & Ghahramani 2016)."""

    def forward(self, x: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
        """Drop, in training; return ``x`` otherwise."""
        mask = self.mask(x, x.shape[-1])
        return x if mask is None else x * mask[:, None]

    def mask(self, x: Float[Tensor, "N *T E"], width: int) -> Float[Tensor, "N D"] | None:
        """Draw what all positions of these rows are multiplied with; None out of training."""
        if not self.training or self.rate == 0:
            return None
        return super().forward(x.new_ones(len(x), width))

    def hold(self, x: Float[Tensor, "N *T E"], width: int) -> Callable[[Tensor], Tensor]:
        """Return what drops from these rows' positions, given one after the other."""
        mask = self.mask(x, width)
        return lambda position: position if mask is None else position * mask
