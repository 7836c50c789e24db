"""The training loop: a generator of updates; what happens between them belongs to the caller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transduce.data.batch import Batch
from transduce.data.stream import Position
from transduce.nn.dropout import MaskPool, drawing_from
from transduce.nn.recompute import recomputing
from transduce.problem import Problem
from transduce.train.memory import forget_shapes, keep_freed_memory
from transduce.train.objective import Learner, Loss, Moment
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision

Stream = Iterator[tuple[Position, Batch]]


@dataclass
class TrainState:
    """All that changes while training; with the data and the seed it determines what follows."""

    learner: Learner
    optimiser: torch.optim.Optimizer
    position: Position  # of the next batch
    step: int = 0  # updates made
    tokens: int = 0  # target tokens learned from
    seconds: float = 0.0  # spent in updates
    scores: list[float] = field(default_factory=list)  # of the validations, higher is better


class Plan(NamedTuple):
    """What does not change while training."""

    optimiser: OptimiserBlueprint
    steps: int
    accumulate: int
    seed: int
    device: torch.device
    precision: Precision
    recompute: bool = False


class Update(NamedTuple):
    """What one update did; tensors, so that a device is only waited for when somebody looks."""

    step: int
    tokens: int  # target tokens in its batches
    total: Float[Tensor, ""]  # summed loss
    nll: Float[Tensor, ""]  # summed negative log-likelihood
    norm: Float[Tensor, ""]  # of the gradient, before clipping
    rate: float
    seconds: float


def steps(state: TrainState, stream: Stream, plan: Plan) -> Iterator[Update]:
    """Make one update after another until ``plan.steps``, changing ``state``.

    Everything random in an update follows from (seed, step), so a run that continues from a saved
    state is bit for bit the run that was never stopped.

    Raises:
        Problem: the loss is no longer a number.
    """
    forget_shapes()
    pool = MaskPool(plan.seed)
    while state.step < plan.steps:
        state.learner.train()
        begun = time.perf_counter()
        keep_freed_memory(large=not plan.recompute)  # predicting may have chosen otherwise
        pool.seek(state.step)
        torch.manual_seed(plan.seed * 1_000_003 + state.step)
        rate = _set_rate(state, plan)
        batches = [next(stream) for _ in range(plan.accumulate)]
        tokens = sum(int(batch.tokens) for _, batch in batches)
        losses = []
        for _, batch in batches:
            precision, recompute = plan.precision.autocast(plan.device), recomputing(plan.recompute)
            with drawing_from(pool), precision, recompute:
                loss = state.learner(batch.to(plan.device), Moment(state.step, plan.seed))
            (loss.total / tokens).backward()
            losses.append(Loss(loss.total.detach(), loss.nll))
        norm = nn.utils.clip_grad_norm_(state.learner.parameters(), plan.optimiser.clip)
        if not norm.isfinite():
            raise Problem(
                f"the gradient of update {state.step + 1} is not a number; lower "
                "train.optimiser.rate or set train.precision: fp32, and train again: it resumes "
                "from the last checkpoint"
            )
        state.optimiser.step()
        state.optimiser.zero_grad()
        seconds = time.perf_counter() - begun
        state.position = batches[-1][0]
        state.step += 1
        state.tokens += tokens
        state.seconds += seconds
        total, nll = (torch.stack(values).sum() for values in zip(*losses, strict=True))
        yield Update(state.step, tokens, total, nll, norm, rate, seconds)


def _set_rate(state: TrainState, plan: Plan) -> float:
    optimiser = plan.optimiser
    factor = optimiser.schedule.factor(state.step + 1, plan.steps, state.scores)
    for group in state.optimiser.param_groups:
        group["lr"] = optimiser.rate * factor
    return optimiser.rate * factor
