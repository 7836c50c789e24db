"""The parts of a batch add up, whoever learns from them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from learning import task
from together import Together
from torch import Tensor, nn

from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.sequences import Sequences
from transduce.train.loop import Plan, TrainState, Update, steps
from transduce.train.objective import (
    CoverageBlueprint,
    CrossEntropyBlueprint,
    Learner,
    Loss,
    Moment,
    Objective,
    TokenDropoutBlueprint,
)
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.parallel import ALONE, Group, joined
from transduce.train.precision import Precision

CPU, SYMBOLS = torch.device("cpu"), 9
RECURRENT = {"kind": "recurrent", "embedding": 8, "width": 8, "dropout": 0}
TRANSFORMER = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "inner": 8, "dropout": 0}
SIZES = (1, 5, 2, 7, 1, 1)  # rows of the batches, often fewer than processes


def batch(number: int, size: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(1, 6, (size,), generator=generator).tolist()
    rows = [torch.randint(3, SYMBOLS, (n,), generator=generator).tolist() for n in lengths]
    source = Sequences.stack([torch.tensor([*row, 2]) for row in rows])
    target = Sequences.stack([torch.tensor([1, *row, 2]) for row in rows])
    return Batch({"source": source}, target, torch.arange(size))


def stream() -> Iterator[tuple[Position, Batch]]:
    for number, size in enumerate(SIZES):
        yield Position(0, number + 1), batch(number, size)


TASK = task(batch(1, 2))


def cross_entropy(model: Seq2Seq, given: Batch, moment: Moment) -> Loss:
    return CrossEntropyBlueprint().build(TASK)(model, given, moment)


def coverage(model: Seq2Seq, given: Batch, moment: Moment) -> Loss:
    return CoverageBlueprint().build(TASK)(model, given, moment)


def with_holes(model: Seq2Seq, given: Batch, moment: Moment) -> Loss:
    """Draw for each row of the corpus, whichever process reads it."""
    return TokenDropoutBlueprint(source=0.3, target=0.3).build(TASK)(model, given, moment)


def of_some_rows(model: Seq2Seq, given: Batch, moment: Moment) -> Loss:
    """Use a parameter for even rows alone, which one process of two has none of."""
    loss = cross_entropy(model, given, moment)
    even = int((given.index % 2 == 0).sum())
    return Loss(loss.total + even * model.get_parameter("some").sum(), loss.nll) if even else loss


def learn(
    group: Group, sides: dict[str, Any], objective: Objective, each: int
) -> tuple[list[Update], Tensor]:
    torch.manual_seed(1)
    model = build(ModelBlueprint.model_validate(sides), {"source": SYMBOLS, "target": SYMBOLS})
    model.register_parameter("some", nn.Parameter(torch.ones(3, 2)))
    model.register_parameter("unused", nn.Parameter(torch.ones(3, 2)))
    learner = Learner(model, objective)
    optimiser = OptimiserBlueprint(rate=0.01, clip=0.5, weight_decay=0.1)
    plan = Plan(optimiser, len(SIZES) // each, each, 3, CPU, Precision(torch.float32, "test"))
    state = TrainState(learner, optimiser.build(model), START)
    updates = list(steps(state, stream(), plan, group))
    assert state.position == Position(0, len(SIZES))
    weights = [value.detach().flatten() for value in learner.parameters()]
    assert torch.equal(model.get_parameter("unused"), torch.ones(3, 2))
    return updates, torch.cat(weights)


def as_alone(sides: dict[str, Any], objective: Objective, each: int) -> None:
    with joined(CPU) as group:
        assert group.size > 1
        ours, weights = learn(group, sides, objective, each)
        theirs, expected = learn(ALONE, sides, objective, each)
        for one, other in zip(ours, theirs, strict=True):
            assert (one.step, one.tokens, one.rate) == (other.step, other.tokens, other.rate)
            for name in ("total", "nll", "norm"):
                torch.testing.assert_close(
                    getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5
                )
        torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)
        mark = zlib.crc32(weights.numpy().tobytes())
        assert (group.most(mark), -group.most(-mark)) == (mark, mark)  # the same bits everywhere


LSTM = {"encoder": RECURRENT, "decoder": RECURRENT}
MIXED = {"encoder": TRANSFORMER, "decoder": RECURRENT | {"connection": "additive"}}
COPYING = {"encoder": TRANSFORMER, "decoder": TRANSFORMER}


@pytest.mark.parametrize(
    ("size", "sides", "objective", "each"),
    [
        (2, LSTM, cross_entropy, 1),
        (3, COPYING, cross_entropy, 2),
        (2, MIXED, coverage, 3),
        (2, LSTM, of_some_rows, 1),
        (2, LSTM, with_holes, 2),
    ],
)
def test_several_processes_learn_what_one_does(
    tmp_path: Path,
    size: int,
    sides: dict[str, Any],
    objective: Objective,
    each: int,
) -> None:
    run = Together(size, tmp_path / "log", as_alone, sides, objective, each)
    assert run.codes() == [0] * size, run.said


def speak(path: Path) -> None:
    with joined(CPU) as group:
        assert group.tell(group.rank + 0.1) == 0.1
        assert group.most(group.rank) == group.size - 1
        assert group.seed(7) == 7 if group.first else group.seed(7) > 7
        mine = torch.full((2, 3), float(group.rank))
        group.same([mine])
        assert not mine.any()
        with group.in_turn():
            assert path.exists() != group.first
            path.touch()
        (rows,) = group.shares([batch(1, 7)])
        assert sorted([len(rows), 7 - len(rows)]) == [3, 4]
        assert rows.index.tolist() == list(range(group.rank, 7, 2))
        assert rows.labels.size == int(rows.labels.lengths.max())


def test_processes_tell_each_other_what_only_one_knows(tmp_path: Path) -> None:
    run = Together(2, tmp_path / "log", speak, tmp_path / "touched")
    assert run.codes() == [0, 0], run.said


def fail() -> None:
    with joined(CPU):
        raise Problem("all have it")


def test_a_problem_that_all_have_is_told_by_the_first_alone(tmp_path: Path) -> None:
    run = Together(3, tmp_path / "log", fail)
    assert run.codes() == [1, 2, 2], run.said
    assert run.said.count("Problem: all have it") == 1


def test_one_process_speaks_with_nobody() -> None:
    with joined(CPU) as group:
        assert group is ALONE
    given = batch(1, 4)
    assert list(ALONE.shares([given])) == [given]
    assert (ALONE.tell(0.5), ALONE.most(3), ALONE.seed(7)) == (0.5, 3, 7)
