"""Which number type to compute in: asked of the machine once, at the start."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Final, Literal, NamedTuple

import torch

Setting = Literal["auto", "fp32", "bf16", "fp16"]

TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GAIN: Final = 1.2  # a half type has to be that many times as fast to be chosen


class Precision(NamedTuple):
    """The type that matrix products run in; weights and sums stay in float32 always."""

    dtype: torch.dtype
    reason: str

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context to run the forward pass in."""
        half = self.dtype != torch.float32
        return torch.autocast(device.type, self.dtype if half else None, half)

    def __str__(self) -> str:
        return next(name for name, dtype in TYPES.items() if dtype == self.dtype)


def choose(setting: Setting, device: torch.device) -> Precision:
    """Return the precision that was asked for; for "auto", a half one where it is faster here.

    That is bf16 but on a GPU that has none, where it is fp16.
    """
    if setting != "auto":
        return Precision(TYPES[setting], "as configured")
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        half = "bf16" if able else "fp16"
    elif torch.ops.mkldnn._is_mkldnn_bf16_supported():
        half = "bf16"
    else:
        return Precision(torch.float32, f"this {device.type} has no bf16 instructions")
    gain = _time(torch.float32, device) / _time(TYPES[half], device)
    if gain < GAIN:
        return Precision(torch.float32, f"{half} is {gain:.1f} times as fast here, not worth it")
    return Precision(TYPES[half], f"{gain:.1f} times as fast as fp32 here")


def _time(dtype: torch.dtype, device: torch.device) -> float:
    """Seconds of a matrix product of a usual size; the best of a few."""
    left = torch.ones(2048, 256, dtype=dtype, device=device)
    right = torch.ones(256, 1024, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(6):
        begun = time.perf_counter()
        torch.mm(left, right)[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return best
