from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch

from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.sequences import Sequences
from transduce.train.faults import FaultsBlueprint
from transduce.train.loop import Plan, Stream, TrainState, Update, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner, Loss, Moment, Objective
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision

LSTM = {"kind": "recurrent", "width": 8, "embedding": 8}
TRANSFORMER = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "inner": 8}
CPU, SYMBOLS = torch.device("cpu"), 9
FP32 = Precision(torch.float32, "test")


def rows(number: int, count: int) -> list[list[int]]:
    """Example rows that depend on the number of the batch alone."""
    generator = torch.Generator().manual_seed(number)
    sizes = torch.randint(1, 6, (count,), generator=generator).tolist()
    return [torch.randint(3, SYMBOLS, (size,), generator=generator).tolist() for size in sizes]


def batch(strings: list[list[int]]) -> Batch:
    source = Sequences.stack([torch.tensor([*string, 2]) for string in strings])
    target = Sequences.stack([torch.tensor([1, *string, 2]) for string in strings])
    return Batch({"source": source}, target, torch.arange(len(strings)))


def stream(start: Position = START) -> Stream:
    """Yield batch after batch, each with the position behind it."""
    number = start[1]
    while True:
        number += 1
        yield Position(0, number), batch(rows(number, 4))


def state(dropout: float, optimiser: OptimiserBlueprint) -> TrainState:
    torch.manual_seed(1)
    facts = {"encoder": LSTM | {"dropout": dropout}, "decoder": TRANSFORMER | {"dropout": dropout}}
    model = build(ModelBlueprint.model_validate(facts), {"source": SYMBOLS, "target": SYMBOLS})
    learner = Learner(model, CrossEntropyBlueprint().build())
    return TrainState(learner, optimiser.build(model), START)


def setting(**facts: Any) -> OptimiserBlueprint:
    return OptimiserBlueprint.model_validate({"schedule": {"kind": "plateau", "warmup": 0}} | facts)


def plan(count: int, optimiser: OptimiserBlueprint, accumulate: int = 1, seed: int = 3) -> Plan:
    return Plan(optimiser, count, accumulate, seed, CPU, FP32)


class Faulty:
    """An objective that is not a number in some updates, in their second batch if they have two."""

    def __init__(self, objective: Objective, updates: set[int], what: str) -> None:
        self.objective, self.updates, self.what = objective, updates, what
        self.seeds = {3 * 1_000_003 + update - 1 for update in updates}

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        loss = self.objective(model, batch, moment)
        if torch.initial_seed() not in self.seeds:
            return loss
        one = next(model.parameters()).sum() * 0 + (1.0 if self.what == "gradient" else 0.0)
        spoiled = (one - 1).sqrt() if self.what == "gradient" else one + math.inf
        return Loss(loss.total + spoiled, loss.nll)


def weights(at: TrainState) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(at.learner.parameters()).detach().clone()


def by_plain_descent(at: TrainState) -> TrainState:
    """Let an update show its gradient: change the weights by rate times gradient."""
    at.optimiser = torch.optim.SGD(at.learner.parameters())
    return at


def test_accumulated_batches_are_one_large_batch() -> None:
    optimiser = setting(rate=1.0, clip=1e6)
    parts = [rows(number, number + 1) for number in range(3)]
    small = ((Position(0, number), batch(part)) for number, part in enumerate(parts))
    large = iter([(Position(0, 0), batch([string for part in parts for string in part]))])
    several, one = (by_plain_descent(state(0.0, optimiser)) for _ in range(2))
    (left,) = steps(several, small, plan(1, optimiser, accumulate=3))
    (right,) = steps(one, large, plan(1, optimiser))
    torch.testing.assert_close(weights(several), weights(one), atol=1e-6, rtol=0)
    for name in ("tokens", "total", "nll", "norm"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name))
    assert several.position == Position(0, 2)


def test_the_gradient_is_that_of_the_mean_over_tokens() -> None:
    optimiser = setting(rate=1.0, clip=1e6)
    at = by_plain_descent(state(0.0, optimiser))
    before, first = weights(at), next(stream())[1]
    loss = at.learner(first)
    gradients = torch.autograd.grad(loss.total / int(first.tokens), list(at.learner.parameters()))
    expected = before - torch.nn.utils.parameters_to_vector(gradients)
    (update,) = steps(at, stream(), plan(1, optimiser))
    torch.testing.assert_close(weights(at), expected)
    assert update.tokens == int(first.tokens) == sum(len(row) + 1 for row in rows(1, 4))
    torch.testing.assert_close(update.nll, loss.nll)


def test_a_large_gradient_is_clipped_and_its_norm_is_told() -> None:
    optimiser = setting(rate=1.0, clip=0.01)
    at = by_plain_descent(state(0.0, optimiser))
    before = weights(at)
    (update,) = steps(at, stream(), plan(1, optimiser))
    assert update.norm > 0.1
    torch.testing.assert_close((weights(at) - before).norm(), torch.tensor(0.01), rtol=1e-3, atol=0)


def numbers(update: Update) -> tuple[float, ...]:
    return (update.total.item(), update.nll.item(), update.norm.item(), update.rate, update.tokens)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_going_on_from_a_copy_is_bit_for_bit_the_run_that_never_stopped(accumulate: int) -> None:
    optimiser = OptimiserBlueprint(rate=0.05)
    whole = state(0.4, optimiser)
    expected = [numbers(u) for u in steps(whole, stream(), plan(7, optimiser, accumulate))]
    first = state(0.4, optimiser)
    begun = list(islice(steps(first, stream(), plan(7, optimiser, accumulate)), 4))
    second = state(0.4, optimiser)
    second.learner.load_state_dict(first.learner.state_dict())
    second.optimiser.load_state_dict(copy.deepcopy(first.optimiser.state_dict()))
    second.position, second.step, second.tokens = first.position, first.step, first.tokens
    torch.manual_seed(12345)  # whatever else was drawn before
    rest = list(steps(second, stream(second.position), plan(7, optimiser, accumulate)))
    assert [numbers(update) for update in begun + rest] == expected
    assert torch.equal(weights(second), weights(whole))
    assert (second.step, second.tokens) == (whole.step, whole.tokens)


def test_the_seed_decides_what_is_dropped() -> None:
    optimiser = setting()
    runs = [state(0.4, optimiser) for _ in range(3)]
    for at, seed in zip(runs, [3, 3, 4], strict=True):
        list(steps(at, stream(), plan(2, optimiser, seed=seed)))
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_a_look_between_updates_changes_nothing() -> None:
    """Validation sets the model to evaluation and draws numbers; learning goes on regardless."""
    optimiser = setting()
    watched, alone = state(0.4, optimiser), state(0.4, optimiser)
    for _ in steps(watched, stream(), plan(3, optimiser)):
        watched.learner.eval()
        torch.rand(7)
    list(steps(alone, stream(), plan(3, optimiser)))
    assert torch.equal(weights(watched), weights(alone))


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_an_update_that_is_no_number_is_left_out_and_spoils_nothing(what: str) -> None:
    """Learning goes on behind it as if its step had been made and had changed nothing."""
    optimiser = setting(rate=0.1)
    with_it, without = state(0.4, optimiser), state(0.4, optimiser)
    with_it.learner.objective = Faulty(with_it.learner.objective, {3, 4}, what)
    made = list(steps(with_it, stream(), plan(6, optimiser, accumulate=2)))
    assert [update.step for update in made if update.fault] == [3, 4]
    assert (with_it.left_out, with_it.in_a_row, with_it.step) == (2, 0, 6)
    assert with_it.tokens == sum(update.tokens for update in made if not update.fault)
    list(steps(without, stream(), plan(2, optimiser, accumulate=2)))
    without.step, without.position = 4, Position(0, 8)
    list(steps(without, stream(without.position), plan(6, optimiser, accumulate=2)))
    assert torch.equal(weights(with_it), weights(without))
    fault = made[2].fault
    assert fault is not None
    assert (fault.step, fault.position) == (2, Position(0, 4))
    assert [len(part) for part in fault.batches] == [4, 4]
    assert math.isfinite(fault.total) == (what == "gradient")


def test_updates_left_out_one_after_another_are_counted() -> None:
    optimiser = setting()
    at = state(0.0, optimiser)
    at.learner.objective = Faulty(at.learner.objective, {2, 4, 5}, "loss")
    counted = [(at.in_a_row, at.left_out) for _ in steps(at, stream(), plan(6, optimiser))]
    assert counted == [(0, 0), (1, 1), (0, 1), (1, 2), (2, 3), (0, 3)]


def test_a_run_that_went_back_goes_on_at_a_lower_rate() -> None:
    optimiser = setting(rate=0.1)
    at = state(0.0, optimiser)
    at.returns = 2
    slower = plan(1, optimiser)._replace(faults=FaultsBlueprint(cut=0.25))
    (update,) = steps(at, stream(), slower)
    assert update.rate == pytest.approx(0.1 * 0.25**2)


def test_the_rate_follows_the_schedule_from_the_first_update_to_the_last() -> None:
    optimiser = setting(rate=0.1, schedule={"kind": "cosine", "warmup": 2})
    at = state(0.0, optimiser)
    rates = [update.rate for update in steps(at, stream(), plan(6, optimiser))]
    assert rates == pytest.approx(
        [0.1 * optimiser.schedule.factor(step, 6, []) for step in range(1, 7)]
    )
    assert rates[0] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.0)


def test_a_plateau_cuts_the_rate_of_the_next_update() -> None:
    schedule = {"kind": "plateau", "warmup": 0, "cut": 0.5, "patience": 2}
    optimiser = setting(rate=0.1, schedule=schedule)
    at, rates = state(0.0, optimiser), []
    scores = iter([1.0, 1.0, 0.5, 2.0, 0.0, 0.0])
    for update in steps(at, stream(), plan(7, optimiser)):
        rates.append(update.rate)
        assert {group["lr"] for group in at.optimiser.param_groups} == {update.rate}
        at.scores += islice(scores, 1)
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025]


def test_it_ends_at_the_last_step_and_can_be_given_more() -> None:
    optimiser = setting()
    at = state(0.0, optimiser)
    assert [update.step for update in steps(at, stream(), plan(2, optimiser))] == [1, 2]
    assert list(steps(at, stream(), plan(2, optimiser))) == []
    assert [u.step for u in steps(at, stream(at.position), plan(3, optimiser))] == [3]
    assert at.position == Position(0, 3)
    assert at.seconds > 0


def test_nothing_is_read_ahead() -> None:
    """A position that was not learned from must not be passed."""
    taken: list[Position] = []

    def counting() -> Iterator[tuple[Position, Batch]]:
        for position, made in stream():
            taken.append(position)
            yield position, made

    optimiser = setting()
    at = state(0.0, optimiser)
    list(islice(steps(at, counting(), plan(9, optimiser, accumulate=2)), 2))
    assert len(taken) == 4
    assert at.position == taken[-1]


def test_bf16_learns_with_weights_and_sums_in_fp32() -> None:
    optimiser = setting(rate=0.01)
    at = state(0.1, optimiser)
    fast = plan(30, optimiser)._replace(precision=Precision(torch.bfloat16, "test"))
    same = ((Position(0, 0), batch(rows(1, 4))) for _ in range(30))
    updates = list(steps(at, same, fast))
    assert {value.dtype for value in at.learner.parameters()} == {torch.float32}
    assert updates[0].total.dtype == torch.float32
    assert updates[-1].nll < 0.7 * updates[0].nll
