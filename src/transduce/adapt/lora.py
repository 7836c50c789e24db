"""Low-rank adaptation of weights (Hu 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.nn.utils import parametrize

from transduce.adapt.interface import AdaptBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.addition import LowRank


class LoraBlueprint(AdaptBlueprint):
    """A change of low rank to every weight matrix; it can be merged into the model."""

    merges: ClassVar[bool] = True

    kind: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1)
    """rank of the change; matrices with no more weights than it would have are left alone"""
    alpha: float = Field(16.0, gt=0)
    """the change is multiplied with alpha / rank"""

    def insert(self, model: Seq2Seq) -> int:
        """Let each matrix be itself and a change."""
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        places = [
            (module, name, weight)
            for module in self.modules(model)
            for name, weight in _matrices(module)
            if id(weight) not in tables and self._is_smaller(weight)
        ]
        for module, name, weight in places:
            change = LowRank(weight, self.rank, self.alpha / self.rank)
            parametrize.register_parametrization(module, name, change)
        return len(places)

    def _is_smaller(self, weight: nn.Parameter) -> bool:
        rows, columns = weight.shape[0], weight.shape[1:].numel()
        return self.rank * (rows + columns) < weight.numel()


def _matrices(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield a module's own matrices and kernels; recurrent layers have several."""
    for name, weight in module.named_parameters(recurse=False):
        if name.startswith("weight") and weight.dim() > 1:
            yield name, weight
