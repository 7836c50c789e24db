"""The training loop: a generator of updates; what happens between them belongs to the caller."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transduce.data.batch import Batch
from transduce.data.follow import Measured
from transduce.data.stream import Position
from transduce.nn.dropout import MaskPool, drawing_from
from transduce.nn.recompute import recomputing
from transduce.train import scaling
from transduce.train.bound import bounded
from transduce.train.faults import Fault, FaultsBlueprint
from transduce.train.fitting import Fitting
from transduce.train.memory import forget_shapes, keep_freed_memory
from transduce.train.moving_average import MovingAverage
from transduce.train.objective import Learner, Loss, Moment
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.parallel import ALONE, Group, Sums
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
    average: MovingAverage | None = None  # of the weights
    validated: int = 0  # the update after which the last of them was
    left_out: int = 0  # updates that were not numbers
    in_a_row: int = 0  # of these, the last ones without one between them that was a number
    returns: int = 0  # times that the run went back to lower its rate
    course: list[Measured] = field(default_factory=list)  # what a mixture follows
    limit: float = math.inf  # positions of a batch for which memory has run out
    scale: float = 1.0  # of the loss in the last update


class Plan(NamedTuple):
    """What does not change while training."""

    optimiser: OptimiserBlueprint
    steps: int
    accumulate: int
    seed: int
    device: torch.device
    precision: Precision
    recompute: bool = False
    faults: FaultsBlueprint = FaultsBlueprint()
    memory: int | None = None  # bytes that this process may have while gradients are computed


class Update(NamedTuple):
    """What one update did; tensors, so that a device is only waited for when somebody looks."""

    step: int
    tokens: int  # target tokens in its batches
    total: Float[Tensor, ""]  # summed loss
    nll: Float[Tensor, ""]  # summed negative log-likelihood
    norm: Float[Tensor, ""]  # of the gradient, before clipping
    rate: float
    seconds: float
    fault: Fault | None = None  # why it changed nothing, if it did not
    too_large: Sequence[int] = ()  # positions for which memory ran out, by process; 0: it did not


def steps(state: TrainState, stream: Stream, plan: Plan, group: Group = ALONE) -> Iterator[Update]:
    """Make one update after another until ``plan.steps``, changing ``state``.

    Everything random in an update follows from (seed, step), so a run that continues from a saved
    state is bit for bit the run that was never stopped. An update that is not a number changes no
    weight, and the next one goes on behind it; its gradient stays until then.

    Raises:
        TooLarge: a single row does not fit into the memory.
    """
    forget_shapes()
    pool, fitting = MaskPool(group.seed(plan.seed)), group.fitting(state.limit)
    while state.step < plan.steps:
        state.learner.train()
        begun = time.perf_counter()
        keep_freed_memory(large=not plan.recompute)  # predicting may have chosen otherwise
        rate = _set_rate(state, plan)
        read = [next(stream) for _ in range(plan.accumulate)]
        batches = [batch for _, batch in read]
        tokens = sum(batch.tokens for batch in batches)
        mine = list(group.shares(batches))
        state.scale = scaling.scale(state.scale, state.step, plan.precision)
        parameters = list(state.learner.parameters())
        sums, finite = _summed(state, mine, tokens, plan, pool, fitting, group)
        total, nll, norm, too_large = sums
        fault = None
        if finite:
            nn.utils.clip_grads_with_norm_(parameters, plan.optimiser.clip, norm)
            state.optimiser.step()
            state.optimiser.zero_grad()
            state.in_a_row = 0
        else:
            parts = [part for batch in batches for part in fitting.parts(batch)]
            fault = Fault(state.step, state.position, parts, float(total), float(norm))
            state.left_out += 1
            state.in_a_row += 1
        seconds = time.perf_counter() - begun
        state.position = read[-1][0]
        state.step += 1
        if state.average is not None and fault is None:
            state.average.update(state.learner.model, state.step)
        state.tokens += 0 if fault else tokens
        state.seconds += seconds
        state.limit = fitting.limit
        yield Update(state.step, tokens, total, nll, norm, rate, seconds, fault, too_large)


def _summed(
    state: TrainState,
    batches: Sequence[Batch],
    tokens: int,
    plan: Plan,
    pool: MaskPool,
    fitting: Fitting,
    group: Group,
) -> tuple[Sums, bool]:
    """Leave the gradient of the next update in the parameters; return sums, and if they are finite.

    A gradient beyond float16 is computed again at a smaller scale; a fault is what is no number
    at any.

    Raises:
        TooLarge: a single row does not fit into the memory.
    """
    parameters, factor = list(state.learner.parameters()), state.scale
    while True:
        losses = gradient(state.learner, batches, tokens, state.step, plan, pool, fitting, factor)
        large = int(fitting.limit) if fitting.limit < state.limit else 0
        sums = group.sum(parameters, losses, large)
        finite = bool((sums.norm + sums.total).isfinite())  # both; a device is waited for once
        if finite or factor == 1:
            break
        factor = factor / 2 if sums.total.isfinite() else 1.0
    if not finite:
        return sums, False
    state.scale = factor
    if factor != 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(factor)
        sums = sums._replace(norm=sums.norm / factor)
    return sums, True


def gradient(
    learner: Learner,
    batches: Sequence[Batch],
    tokens: int,
    step: int,
    plan: Plan,
    pool: MaskPool,
    fitting: Fitting,
    scale: float = 1.0,
) -> list[Loss]:
    """Leave ``scale`` times the gradient of the update after ``step``; return its losses.

    ``tokens`` are those of the whole update, of which these batches may be a share.

    Raises:
        TooLarge: a single row does not fit into the memory.
    """

    def begin() -> None:
        learner.zero_grad()
        pool.seek(step)
        torch.manual_seed(pool.seed * 1_000_003 + step)

    def learn(batch: Batch) -> Loss:
        precision, recompute = plan.precision.autocast(plan.device), recomputing(plan.recompute)
        with drawing_from(pool), precision, recompute:
            loss = learner(batch.to(plan.device), Moment(step, plan.seed))
        (loss.total / (tokens / scale)).backward()
        return Loss(loss.total.detach(), loss.nll)

    with bounded(plan.memory):
        return fitting.compute(batches, learn, begin)


def _set_rate(state: TrainState, plan: Plan) -> float:
    optimiser = plan.optimiser
    optimiser.thaw(state.optimiser, state.step)
    factor = optimiser.schedule.factor(state.step + 1, plan.steps, state.scores)
    factor *= plan.faults.cut**state.returns
    for group in state.optimiser.param_groups:
        group["lr"] = optimiser.rate * factor * group.get("scale", 1.0)
    return optimiser.rate * factor
