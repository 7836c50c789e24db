"""Which number type to compute in: asked of the machine once, at the start."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch

Setting = Literal["auto", "fp32", "bf16"]


class Precision(NamedTuple):
    """The type that matrix products run in; weights and sums stay in float32 always."""

    dtype: torch.dtype
    reason: str

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context to run the forward pass in."""
        return torch.autocast(device.type, torch.bfloat16, self.dtype == torch.bfloat16)

    def __str__(self) -> str:
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"


def choose(setting: Setting, device: torch.device) -> Precision:
    """Return the precision that was asked for; for "auto", bf16 where it is faster here."""
    if setting == "fp32":
        return Precision(torch.float32, "as configured")
    if setting == "bf16":
        return Precision(torch.bfloat16, "as configured")
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not able:
        return Precision(torch.float32, f"this {device.type} has no bf16 instructions")
    gain = _time(torch.float32, device) / _time(torch.bfloat16, device)
    if gain < 1.2:
        return Precision(torch.float32, f"bf16 is {gain:.1f} times as fast here, not worth it")
    return Precision(torch.bfloat16, f"{gain:.1f} times as fast as fp32 here")


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
