"""Adapting a trained model by parameters of its own, few enough to keep many such for one model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from transduce.blueprint import Part
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem


class AdaptBlueprint(Part):
    """Slot for what is added to a model that stays as it is."""

    merges: ClassVar[bool] = False  # what is added can become a part of the model's own weights

    parts: tuple[Literal["encoder", "decoder", "head"], ...] = Field(
        ("encoder", "decoder", "head"), min_length=1
    )
    """where to add it"""

    def adapt(self, model: Seq2Seq) -> None:
        """Add the small parameters, which change nothing yet, and let nothing else learn.

        Raises:
            Problem: these parts have no place for them.
        """
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        if not self.insert(model):
            raise Problem(f"there is no place for {self.kind} in {', '.join(self.parts)}", "adapt")

    @abstractmethod
    def insert(self, model: Seq2Seq) -> int:
        """Add what learns; return to how many places."""

    def modules(self, model: Seq2Seq) -> Iterator[nn.Module]:
        """Yield all modules of the parts."""
        named = {"encoder": model.encoders, "decoder": model.decoder, "head": model.head}
        for part in dict.fromkeys(self.parts):
            yield from list(named[part].modules())
