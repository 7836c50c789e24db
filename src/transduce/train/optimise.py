"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from transduce.blueprint import Blueprint, Part
from transduce.models.pieces import Piece, belongs, depths, parameters
from transduce.problem import Problem


class ScheduleBlueprint(Part):
    """Slot for a schedule: a pure function, so that there is nothing to save or restore."""

    warmup: int = Field(400, ge=0)
    """updates over which the rate rises from zero"""

    def factor(self, step: int, last: int, scores: Sequence[float]) -> float:
        """Return what the rate is multiplied with at update ``step`` (from 1) of ``last``.

        ``scores`` are those of the validations so far, higher is better.
        """
        if step < self.warmup:
            return step / self.warmup
        return self.fall(step, last, scores)

    @abstractmethod
    def fall(self, step: int, last: int, scores: Sequence[float]) -> float:
        """Return the factor after the warm-up."""


class InverseSquareRoot(ScheduleBlueprint):
    """Falls with the square root of the updates (Vaswani 2017)."""

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"

    def fall(self, step: int, last: int, scores: Sequence[float]) -> float:
        """Return sqrt(warmup / step)."""
        return math.sqrt(max(self.warmup, 1) / step)


class Cosine(ScheduleBlueprint):
    """Falls along half a cosine to a floor at the last update (Loshchilov 2017)."""

    kind: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, le=1)
    """share of the rate that is left at the end"""

    def fall(self, step: int, last: int, scores: Sequence[float]) -> float:
        """Return the cosine's height."""
        done = min(1.0, (step - self.warmup) / max(1, last - self.warmup))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


class Plateau(ScheduleBlueprint):
    """Stays, and is cut each time the validation score has not improved for a while."""

    kind: Literal["plateau"] = "plateau"
    cut: float = Field(0.5, gt=0, lt=1)
    """what the rate is multiplied with"""
    patience: int = Field(2, ge=1)
    """validations without improvement before a cut"""

    def fall(self, step: int, last: int, scores: Sequence[float]) -> float:
        """Return ``cut`` to the number of plateaus so far."""
        best, waited, cuts = -math.inf, 0, 0
        for score in scores:
            waited = 0 if score > best else waited + 1
            best = max(best, score)
            if waited == self.patience:
                cuts, waited = cuts + 1, 0
        return float(self.cut**cuts)


Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimiserBlueprint(Blueprint):
    """AdamW (Loshchilov 2019) and how its rate changes."""

    rate: float = Field(1e-3, gt=0)
    """highest learning rate"""
    schedule: ScheduleBlueprint = InverseSquareRoot()
    """how the rate rises and falls"""
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    """decay of the averages of the gradient and of its square"""
    epsilon: float = Field(1e-8, gt=0)
    """added to the root of the second average"""
    weight_decay: float = Field(0.0, ge=0)
    """pull towards zero; matrices only, never biases, norms or embeddings"""
    clip: float = Field(1.0, gt=0)
    """largest norm of the gradient"""
    frozen: tuple[Piece, ...] = ()
    """what does not learn; a tied table is frozen with either of its sides"""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """what the rate is multiplied with for each layer further from the output (Howard 2018)"""
    unfreeze_every: int | None = Field(None, ge=1)
    """updates until the next layer below those that learn begins to (Howard 2018); null: all learn
    from the first"""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Make the optimiser for the parameters of ``model`` that learn.

        Groups say what their rate is multiplied with (``scale``), and after which update they begin
        to learn (``begin``).

        Raises:
            Problem: all are frozen.
        """
        freeze(model, self.frozen)
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        even = self.layer_decay == 1 and self.unfreeze_every is None
        depth = {} if even else depths(model)
        members: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                spared = parameter.dim() < 2 or id(parameter) in tables
                members.setdefault((depth.get(name, 0), spared), []).append(parameter)
        groups: list[dict[str, Any]] = [
            {
                "params": members[deep, spared],
                "weight_decay": 0.0 if spared else self.weight_decay,
                "scale": self.layer_decay**deep,
                "begin": deep * (self.unfreeze_every or 0),
            }
            for deep, spared in sorted(members)
        ]
        return torch.optim.AdamW(groups, self.rate, self.betas, self.epsilon, fused=True)

    def thaw(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Let learn what begins to after update ``step`` or before, and nothing else."""
        if self.unfreeze_every is not None:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(step >= group["begin"])


def freeze(model: nn.Module, pieces: Sequence[Piece]) -> None:
    """Let nothing of the pieces learn.

    Raises:
        Problem: nothing is left that does.
    """
    for names, parameter in parameters(model):
        if any(belongs(name, piece) for name in names for piece in pieces):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise Problem("nothing is left that learns; name less", "train.optimiser.frozen")
