"""What training minimises: sums and counts, never means, so that the parts of a batch add up."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq


class Loss(NamedTuple):
    """Sums over the target tokens of a batch."""

    total: Float[Tensor, ""]  # what the gradient is taken of
    nll: Float[Tensor, ""]  # negative log-likelihood in nats, for people


class Objective(Protocol):
    """Turns a model and a batch into a loss."""

    def __call__(self, model: Seq2Seq, batch: Batch) -> Loss:
        """Compute the loss of a batch."""


class ObjectiveBlueprint(Part):
    """Slot for an objective."""

    weighs: ClassVar[bool] = False  # it makes use of the weights of examples

    @abstractmethod
    def build(self) -> Objective:
        """Make it."""


class Learner(nn.Module):
    """A model and what it should minimise, as one module that anything can wrap."""

    def __init__(self, model: Seq2Seq, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of a batch."""
        return self.objective(self.model, batch)
