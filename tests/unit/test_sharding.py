"""Processes that share a model out learn what one does, and any number of them goes on."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from test_parallel import (
    COPYING,
    CPU,
    LSTM,
    MIXED,
    SIZES,
    SYMBOLS,
    coverage,
    cross_entropy,
    of_some_rows,
    stream,
)
from test_processes import SETTINGS, Training, losses, records, saved, train
from test_processes import data as data
from together import Together
from torch import Tensor, nn

from transduce import folder
from transduce.data.stream import START
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.train import checkpoint
from transduce.train.compiled import compile_layers
from transduce.train.loop import Plan, TrainState, Update, steps
from transduce.train.moving_average import MovingAverage
from transduce.train.objective import (
    AdversarialBlueprint,
    CrossEntropyBlueprint,
    InTurnBlueprint,
    Learner,
    Objective,
    SelfCriticalBlueprint,
)
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.parallel import ALONE, Group, joined
from transduce.train.precision import Precision
from transduce.train.sharding import FullBlueprint, Sharded, WholeBlueprint
from transduce.train.shares import is_shared, own

DEEP = {"kind": "transformer", "width": 8, "layers": 2, "heads": 2, "inner": 8, "dropout": 0}
STACKS = {"encoder": DEEP, "decoder": DEEP}
CONVOLUTION = {"kind": "convolutional", "width": 8, "layers": 2, "dropout": 0}
CONVOLUTIONS = {"encoder": CONVOLUTION, "decoder": CONVOLUTION}
TRANSFORMER = "{kind: transformer, width: 16, layers: 2, heads: 2, inner: 16, dropout: 0}"
FULL = "train.sharding=full"
SIDES = ("source", "target")


class Case(NamedTuple):
    """What is learned, and how."""

    sides: dict[str, Any]
    objective: Objective = cross_entropy
    each: int = 1
    recompute: bool = False
    unfreeze_every: int | None = None


def begin(group: Group, case: Case) -> tuple[TrainState, Seq2Seq, OptimiserBlueprint]:
    torch.manual_seed(1)
    model = build(ModelBlueprint.model_validate(case.sides), dict.fromkeys(SIDES, SYMBOLS))
    model.register_parameter("some", nn.Parameter(torch.ones(3, 2)))
    learner = group.spread(Learner(model, case.objective))
    optimiser = OptimiserBlueprint(
        rate=0.01,
        epsilon=1e-6,  # the slope of what adds to all keys is noise around zero
        clip=0.5,
        weight_decay=0.1,
        unfreeze_every=case.unfreeze_every,
    )
    state = TrainState(learner, optimiser.build(learner.model), START)
    state.average = MovingAverage(learner.model, 0.9)
    return state, model, optimiser


def learn(group: Group, case: Case) -> tuple[list[Update], Tensor, Tensor]:
    """Return what the updates say, and in the first process the weights and their average."""
    state, model, optimiser = begin(group, case)
    kind = Precision(torch.float32, "test")
    plan = Plan(optimiser, len(SIZES) // case.each, case.each, 3, CPU, kind, case.recompute)
    updates = list(steps(state, stream(), plan, group))
    group.gather(state.learner, model, None)
    weights = flat(model.parameters()) if group.first else Tensor()
    assert state.average
    if not group.shared:
        return updates, weights, flat(state.average.values.values())
    group.gather(state.learner, model, state.average)
    return updates, weights, flat(model.parameters()) if group.first else Tensor()


def flat(values: Iterable[Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in values])


def as_alone(case: Case) -> None:
    with joined(CPU, Sharded) as group:
        assert group.shared
        ours, weights, average = learn(group, case)
        theirs, expected, mean = learn(ALONE, case)
        for one, other in zip(ours, theirs, strict=True):
            assert (one.step, one.tokens, one.rate) == (other.step, other.tokens, other.rate)
            for name in ("total", "nll", "norm"):
                torch.testing.assert_close(
                    getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5
                )
        if group.first:
            torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(average, mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "case"),
    [
        (2, Case(LSTM)),
        (3, Case(COPYING, each=2)),
        (2, Case(MIXED, coverage, each=3)),
        (2, Case(STACKS, of_some_rows, each=2, recompute=True)),
        (2, Case(STACKS, each=2, unfreeze_every=1)),
        (2, Case(CONVOLUTIONS, recompute=True)),
    ],
)
def test_sharded_processes_learn_what_one_does(tmp_path: Path, size: int, case: Case) -> None:
    run = Together(size, tmp_path / "log", as_alone, case)
    assert run.codes() == [0] * size, run.said


def share_out() -> None:
    with joined(CPU, Sharded) as group:
        state, model, optimiser = begin(group, Case(STACKS))
        plan = Plan(optimiser, 2, 3, 3, CPU, Precision(torch.float32, "test"))
        send = dist.reduce_scatter_single
        with mock.patch.object(dist, "reduce_scatter_single", wraps=send) as sent:
            list(steps(state, stream(), plan, group))
        # five units: two layers on each side, of which a decoder's has two passes, and the rest
        assert sent.call_count == 2 * 7, sent.call_count  # once for each update
        parameters = list(state.learner.parameters())
        assert all(map(is_shared, parameters))
        mine = sum(own(value).numel() for value in parameters)
        moments = {p: values["exp_avg"] for p, values in state.optimiser.state.items()}
        assert len(moments) == len(parameters) - 1, "nobody used one of them"
        assert all(own(p).shape == own(moment).shape for p, moment in moments.items())
        size = sum(value.numel() for value in parameters)
        assert group.most(mine) < 0.6 * size
        assert group.first == (not any(map(is_shared, model.parameters())))


def test_each_process_holds_its_share_and_gradients_travel_once(tmp_path: Path) -> None:
    run = Together(2, tmp_path / "log", share_out)
    assert run.codes() == [0, 0], run.said


def fail_to_write(root: Path) -> None:
    with joined(CPU, Sharded) as group:
        state, _, _ = begin(group, Case(COPYING))
        full = mock.patch.object(checkpoint, "save_file", side_effect=OSError(errno.ENOSPC, "full"))
        for broken in (1, 0, None):
            with full if group.rank == broken else nullcontext():
                if not group.first:
                    checkpoint.save_share(root, state, group)
                elif broken is None:
                    folder.verify(checkpoint.save(root, state, group))
                else:
                    with pytest.raises(OSError, match="No space left"):
                        checkpoint.save(root, state, group)
                    assert not any(root.iterdir())


def test_a_checkpoint_is_there_whole_or_not_at_all_whichever_process_fails(tmp_path: Path) -> None:
    run = Together(2, tmp_path / "log", fail_to_write, tmp_path / "root")
    assert run.codes() == [0, 0], run.said
    names = {path.name for path in (tmp_path / "root/step-0000000").iterdir()}
    assert names == {"manifest.json", "state.json"} | {
        f"{stem}-{part}-of-2.safetensors"
        for stem in ("weights", "optimiser", "average")
        for part in (1, 2)
    }


@pytest.fixture
def stacks(data: Path) -> Path:
    """The data with an experiment whose model has layers to share out."""
    old = "{kind: recurrent, embedding: 8, width: 16, dropout: 0}"
    assert SETTINGS.count(old) == 2
    changed = SETTINGS.replace(old, TRANSFORMER) + "seed: 3\n"
    (data / "exp.yaml").write_text(changed, encoding="utf-8")
    return data


def test_any_number_of_processes_goes_on_from_shares_and_with_them(stacks: Path) -> None:
    average = "train.moving_average=0.9"
    train(stacks, "one", 1, average)
    said = train(stacks, "run", 2, average, FULL, "train.max_steps=4", "train.accumulate=1")
    assert "in each of 2 processes, which share the model out" in said
    assert "going on from step 4" in train(stacks, "run", 3, average, FULL, "train.max_steps=7")
    assert "going on from step 7" in train(stacks, "run", 1, average, "train.max_steps=9")
    assert "going on from step 9" in train(stacks, "run", 2, average, FULL)
    by_step = {r["step"]: r["loss"] for r in records(stacks / "run") if "loss" in r}
    expected = {r["step"]: r["loss"] for r in records(stacks / "one") if "loss" in r}
    assert by_step == pytest.approx(expected, abs=1e-5)
    assert losses(stacks / "run")[-1] == pytest.approx(losses(stacks / "one")[-1], abs=1e-5)
    model = (stacks / name / "model/weights.safetensors" for name in ("one", "run"))
    assert len({path.stat().st_size for path in model}) == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_shares_learn_in_half_types_as_well(stacks: Path, precision: str) -> None:
    half = (f"train.precision={precision}", "train.max_steps=4", "train.recompute=true")
    train(stacks, "one", 1, *half)
    train(stacks, "two", 2, *half, FULL)
    assert losses(stacks / "two") == pytest.approx(losses(stacks / "one"), rel=1e-2)


@pytest.mark.parametrize("which", [0, 1])
def test_if_one_that_has_a_share_dies_all_end_and_training_goes_on(
    stacks: Path, which: int
) -> None:
    endless = ("train.max_steps=100000", "validation.every=4", FULL)
    training = Training(stacks, "run", 2, *endless)
    training.under_way(8)
    training.send(which, signal.SIGKILL)
    expected = [75, 69]
    expected[which] = -signal.SIGKILL
    assert training.codes() == expected, training.said
    told = [line for line in training.said.split("\n") if "train again to go on" in line]
    assert len(told) == which
    assert "Traceback" not in training.said
    step = saved(stacks / "run")
    changes = (f"train.max_steps={step + 2}", "validation.every=4")
    assert f"going on from step {step}" in train(stacks, "run", 1, *changes)


def test_faults_are_kept_whole(stacks: Path) -> None:
    wild = ("train.optimiser.rate=1e30", "train.optimiser.clip=1e30", FULL)
    training = Training(stacks, "run", 2, *wild, "train.faults.returns=0")
    assert training.codes() == [2, 2], training.said
    kept = sorted((stacks / "run/faults").iterdir())
    assert kept
    assert training.said.count("then begin anew") == 1


def test_what_depends_on_the_examples_is_refused() -> None:
    full = FullBlueprint()
    full.admit(CrossEntropyBlueprint())
    for objective in (AdversarialBlueprint(), SelfCriticalBlueprint()):
        WholeBlueprint().admit(objective)
        for one in (objective, InTurnBlueprint(updates=3, then=objective)):
            with pytest.raises(Problem, match=r"train\.sharding: .* wait for ever"):
                full.admit(one)


def single_number() -> None:
    similar = {"similarity": "cosine"}
    with joined(CPU, Sharded) as group:
        begin(group, Case({"encoder": DEEP | similar, "decoder": DEEP}))


def test_single_numbers_are_refused(tmp_path: Path) -> None:
    run = Together(2, tmp_path / "log", single_number)
    assert run.codes() == [1, 2], run.said
    assert "is a single number, which has no rows" in run.said


def compiling() -> None:
    with joined(CPU, Sharded) as group:
        state, _, _ = begin(group, Case(STACKS))
        compile_layers(state.learner.model)


def test_what_is_shared_out_is_not_compiled(tmp_path: Path) -> None:
    run = Together(2, tmp_path / "log", compiling)
    assert 2 in run.codes(), run.said
    assert "layers that processes share out are not compiled" in run.said
