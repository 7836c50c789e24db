"""Standing firm against the small change of what is read that hurts most."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.embeddings import reading_instead
from transduce.train.objective.interface import Loss, Moment, Objective, ObjectiveBlueprint, Task


class Adversarial(NamedTuple):
    """Adversarial training on embeddings (Miyato 2017), of source and target (Sato 2019).

    The vectors of an example are moved by r = size g / |g|, g being the gradient of the loss by all
    vectors of that example; to the loss comes ``weight`` times the loss after that.
    """

    objective: Objective
    size: float
    weight: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score the batch as it is, and as it hurts most."""
        moves = self._worst(model, batch, moment)

        def moved(side: str, vectors: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
            return vectors + moves[side] if side in moves else vectors

        with reading_instead(model, vectors=moved):
            hurt = self.objective(model, batch, moment)
        loss = self.objective(model, batch, moment)
        return Loss(loss.total + self.weight * hurt.total, loss.nll)

    @torch.enable_grad()
    def _worst(
        self, model: Seq2Seq, batch: Batch, moment: Moment
    ) -> dict[str, Float[Tensor, "N T D"]]:
        """Return how the vectors of each side are moved."""
        read: dict[str, Tensor] = {}

        def noted(side: str, vectors: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
            if torch.is_grad_enabled():
                vectors = read[side] = vectors.detach().requires_grad_()
            return vectors

        with reading_instead(model, vectors=noted):
            loss = self.objective(model, batch, moment)
        slopes = torch.autograd.grad(loss.total, list(read.values()))
        squares = [slope.float().square().sum((1, 2), keepdim=True) for slope in slopes]
        norm = torch.stack(squares).sum(0).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        return {side: self.size * slope / norm for side, slope in zip(read, slopes, strict=True)}


class AdversarialBlueprint(ObjectiveBlueprint):
    """Stand firm against the small change of what is read that hurts most."""

    kind: Literal["adversarial"] = "adversarial"
    objective: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised, and what hurts"""
    size: float = Field(1.0, gt=0)
    """length of the move of all vectors of an example; that of one vector is sqrt(width)"""
    weight: float = Field(1.0, gt=0)
    """price of what is lost by it"""

    @property
    def even(self) -> bool:
        """Another pass goes back within each."""
        return False

    def build(self, task: Task) -> Adversarial:
        """Make it."""
        return Adversarial(self.objective.build(task), self.size, self.weight)
