"""Linear maps whose weights can be laid out ahead for the processor, for predicting.

A plain product lays the weights out anew each time it runs. That is up to half of its time at the
few rows that a search reads at once, and the larger the map the worse. Laid out, weights may also
be rounded, which is faster and no longer the same.
"""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from typing import ClassVar, Final, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transduce.problem import Problem

NumberType = Literal["fp32", "bf16", "int8"]
FEW: Final = 4  # rows below which preparing a packed product costs more than it saves
ROWS: Final = 64  # rows for which the weights are laid out; other numbers work as well
LARGE: Final = 2**17  # numbers of a weight below which rounding its inputs costs what int8 saves
GAIN: Final = 1.2  # a less exact type has to be that many times as fast to be chosen
TURNS: Final = 5  # times that a product is timed


class Packed(ABC):
    """A weight in a layout that oneDNN's products read; torch's compiler uses the same calls."""

    few: ClassVar[int] = 1  # rows below which the ordinary product is taken

    @abstractmethod
    def __init__(self, weight: Float[Tensor, "O I"]) -> None: ...

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Whether such products exist here for this weight."""
        known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        return known and plain and torch._C._has_mkldnn

    @abstractmethod
    def product(self, x: Float[Tensor, "*rows I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
        """Return x W' + b."""


class Exactly(Packed):
    """The weight as it is."""

    few = FEW

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        self.data = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def product(self, x: Float[Tensor, "*rows I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
        answer: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.data, bias, "none", [], "")
        return answer


class InBfloat16(Packed):
    """The weight and its inputs in bfloat16; sums are in single precision."""

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        half = weight.detach().bfloat16()
        self.data = torch.ops.mkldnn._reorder_linear_weight(half, ROWS)

    def product(self, x: Float[Tensor, "*rows I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
        half = x.bfloat16()
        answer: Tensor = torch.ops.mkldnn._linear_pointwise(half, self.data, None, "none", [], "")
        return answer.float() if bias is None else answer.float().add_(bias)


class InBytes(Packed):
    """The weight in whole numbers of 8 bits with a scale for each output, the inputs for each row.

    Scales of the inputs are found anew in each product (dynamic quantisation), and those of a row
    depend on no other: what a row gets is the same in any batch, to the bit.
    """

    def __init__(self, weight: Float[Tensor, "O I"]) -> None:
        self.scales = _scale(weight.detach())[:, 0].contiguous()
        whole = (weight.detach() / self.scales[:, None]).round().to(torch.int8)
        self.data = torch.ops.onednn.qlinear_prepack(whole, None)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)

    def product(self, x: Float[Tensor, "*rows I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
        rows = x.flatten(0, -2)
        scale = _scale(rows)
        # Numbers without a sign (128 stands for 0) are what processors multiply fast.
        whole = (rows / scale).round_().add_(128).to(torch.uint8)
        multiply = torch.ops.onednn.qlinear_pointwise
        weight = self.data, self.scales, self.zeros
        answer: Tensor = multiply(
            whole, 1.0, 128, *weight, None, 1.0, 0, torch.float32, "none", [], ""
        ).mul_(scale)
        return (answer if bias is None else answer.add_(bias)).view(*x.shape[:-1], -1)


def _scale(rows: Float[Tensor, "R I"]) -> Float[Tensor, "R 1"]:
    """Return what each row is to be divided by to lie between -127 and 127."""
    return rows.abs().amax(1, keepdim=True).clamp_(min=1e-30).div_(127)


TYPES: Final[dict[NumberType, type[Packed]]] = {
    "fp32": Exactly,
    "bf16": InBfloat16,
    "int8": InBytes,
}


class Packable(nn.Module):
    """Holds a ``weight`` and, for predicting, the same once more in its packed layout."""

    weight: Tensor
    packed: Packed | None = None

    def product(self, x: Float[Tensor, "*rows I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
        """Return x W' + b; what needs a gradient or another type takes the ordinary way."""
        ordinary = (
            self.packed is None or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
        )
        if ordinary:
            return F.linear(x, self.weight, bias)
        assert self.packed is not None
        if x.numel() < self.packed.few * x.shape[-1]:
            return F.linear(x, self.weight, bias)
        return self.packed.product(x, bias)


class Linear(nn.Linear, Packable):
    """A linear map as torch has it, which can be packed."""

    def forward(self, x: Float[Tensor, "*rows I"]) -> Float[Tensor, "*rows O"]:
        """Return x W' + b."""
        return self.product(x, self.bias)


def pack(model: nn.Module, precision: NumberType | Literal["auto"] = "fp32") -> None:
    """Pack all weights of a model that will only predict from now on.

    They must not change any more, and take their place in memory twice. ``auto`` takes what is
    fastest on this machine, of like ones the most exact, and says in a warning what it took.

    Raises:
        Problem: the processor, or the device, has no such products.
    """
    maps = [module for module in model.modules() if isinstance(module, Packable)]
    served = [module for module in maps if Packed.serves(module.weight)]
    if precision != "fp32" and len(served) < len(maps):
        raise Problem(f"{precision} needs a CPU and a torch with oneDNN; leave it out", "precision")
    if precision == "auto":
        precision = _fastest(served)
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise Problem("this processor does not multiply bf16; take int8 or fp32", "precision")
    kinds = [_type(precision, module.weight) for module in served]
    if precision == "int8" and InBytes not in kinds:
        what = f"int8 changes nothing: this model has no map of {LARGE:,} weights; leave it out"
        warnings.warn(f"precision: {what}", stacklevel=2)
    for module, kind in zip(served, kinds, strict=True):
        module.packed = kind(module.weight)


def _type(precision: NumberType, weight: Tensor) -> type[Packed]:
    small = precision == "int8" and weight.numel() < LARGE
    return Exactly if small else TYPES[precision]


def _fastest(maps: list[Packable]) -> NumberType:
    """Return the type in which all maps together are fastest, the next best if it gains little."""
    half = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    large = any(module.weight.numel() >= LARGE for module in maps)
    useless = {"bf16": not half, "int8": not large}
    able: list[NumberType] = [name for name in get_args(NumberType) if not useless.get(name)]
    shapes = Counter(module.weight.shape for module in maps)
    one = {module.weight.shape: module.weight for module in maps}
    needed = {
        name: sum(count * seconds(_type(name, one[s]), one[s]) for s, count in shapes.items())
        for name in able
    }
    chosen = able[0]
    for name in able[1:]:
        if needed[name] * GAIN < needed[chosen]:
            chosen = name
    ratios = ", ".join(f"{name} {needed['fp32'] / needed[name]:.1f}" for name in able)
    what = f"precision: auto takes {chosen}; speed of this model's products here: {ratios}"
    warnings.warn(what, stacklevel=4)
    return chosen


@torch.no_grad()
def seconds(kind: type[Packed], weight: Float[Tensor, "O I"]) -> float:
    """Return how long a product takes at best."""
    packed, x, found = kind(weight), torch.ones(ROWS, weight.shape[1]), []
    for _ in range(TURNS):
        begun = time.perf_counter()
        packed.product(x, None)
        found.append(time.perf_counter() - begun)
    return min(found)
