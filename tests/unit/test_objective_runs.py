"""Objectives in runs: they go on bit for bit, are written and read, and say what they lack."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import test_run
import torch
from test_loop import TRANSFORMER, numbers, plan, setting, state, stream, weights
from test_run import data as data

from transduce import blueprint
from transduce.data.batch import Example
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.text.codec import CodecBlueprint, TextCodec
from transduce.train.loop import TrainState, steps
from transduce.train.objective import Learner, ObjectiveBlueprint, Task

ALL = {
    "scheduled_sampling": "{truth: {kind: linear, updates: 6, floor: 0.2}, objective: r_drop}",
    "token_dropout": "{objective: {kind: scheduled_sampling, passes: 2, choice: best}}",
    "adversarial": "{objective: token_dropout, size: 0.1}",
    "r_drop": "{objective: {kind: distillation, teachers: [there], temperature: 2.0}}",
    "minimum_risk": "{samples: 3, metric: cer, objective: cross_entropy}",
    "self_critical": "{samples: 2, metric: cer}",
    "in_turn": "{updates: 3, then: {kind: minimum_risk, samples: 2, metric: chrf}}",
}


def settings(kind: str) -> str:
    return f"train.objective={{kind: {kind}, {ALL[kind][1:]}"


def made(kind: str) -> ObjectiveBlueprint:
    return blueprint.parse(
        test_run.SETTINGS, Experiment, "exp.yaml", [settings(kind)]
    ).train.objective


@pytest.mark.parametrize("kind", ALL)
def test_what_is_written_is_what_was_read(kind: str, tmp_path: Path) -> None:
    experiment = blueprint.parse(test_run.SETTINGS, Experiment, "exp.yaml", [settings(kind)])
    path = tmp_path / "experiment.yaml"
    path.write_text(blueprint.dump(experiment), encoding="utf-8")
    assert blueprint.read(path, Experiment) == experiment
    assert experiment.train.objective.kind == kind


def begin(kind: str) -> TrainState:
    optimiser = setting(rate=0.05)
    at, teacher = state(0.4, optimiser), state(0.0, optimiser).learner.model.eval()
    codec = TextCodec.learn(CodecBlueprint.model_validate({"tokens": "characters"}), ["abcdef"])
    example = Example({"source": "abc"}, ("abc", "bc"), "here:1")
    task = Task(lambda _: example, codec, 0, lambda x: torch.full_like(x, 6), lambda _: (teacher,))
    at.learner = Learner(at.learner.model, made(kind).build(task))
    return at


@pytest.mark.parametrize("kind", ALL)
def test_going_on_is_bit_for_bit_the_run_that_never_stopped(kind: str) -> None:
    assert TRANSFORMER["kind"] == "transformer"
    optimiser = setting(rate=0.05)
    whole = begin(kind)
    expected = [numbers(update) for update in steps(whole, stream(), plan(6, optimiser, 2))]
    first = begin(kind)
    begun = list(islice(steps(first, stream(), plan(6, optimiser, 2)), 3))
    second = begin(kind)
    second.learner.load_state_dict(first.learner.state_dict())
    second.optimiser.load_state_dict(first.optimiser.state_dict())
    second.position, second.step = first.position, first.step
    torch.manual_seed(12345)  # whatever else was drawn before
    rest = list(steps(second, stream(second.position), plan(6, optimiser, 2)))
    assert [numbers(update) for update in begun + rest] == expected
    assert torch.equal(weights(second), weights(whole))


@pytest.mark.parametrize("kind", ALL)
def test_activations_may_be_recomputed_with_the_same_bits(kind: str) -> None:
    optimiser, found = setting(rate=0.05), []
    for recompute in (False, True):
        at = begin(kind)
        at.step = 4  # the turn of what comes last
        again = plan(6, optimiser)._replace(recompute=recompute)
        found.append([numbers(update) for update in steps(at, stream(), again)])
    assert found[0] == found[1]


MIXED = (
    "train.objective={kind: in_turn, updates: 8, first: {kind: scheduled_sampling, truth: {kind: "
    "linear, updates: 8}}, then: {kind: self_critical, metric: exact, objective: token_dropout}}"
)


def test_a_run_with_several_objectives_goes_on_bit_for_bit(data: Path) -> None:
    schedule = "train.optimiser.schedule.kind=inverse_sqrt"
    whole = test_run.run(data, "whole", schedule, MIXED)
    test_run.run(data, "parts", schedule, MIXED, "train.max_steps=12")
    parts = test_run.run(data, "parts", schedule, MIXED)
    assert test_run.weights(whole) == test_run.weights(parts)


def test_a_run_teaches_another_of_the_same_symbols(data: Path) -> None:
    teacher = test_run.run(data, "teacher", "train.max_steps=6")
    taught = f"train.objective={{kind: distillation, teachers: [{teacher}, {teacher / 'model'}]}}"
    student = test_run.run(
        data, "student", taught, "model.decoder={kind: transformer, width: 8, heads: 2}"
    )
    assert (student / "report.html").exists()
    for change, what in (
        ("text.source.tokens=words", "its target vocabulary"),
        ("text={source: {tokens: words}, target: {tokens: characters}}", "its source vocabulary"),
    ):
        with pytest.raises(Problem, match=what) as caught:
            test_run.run(data, what.replace(" ", "-"), taught, change)
        assert str(caught.value).startswith(str(teacher))
    with pytest.raises(Problem, match="no such folder"):
        test_run.run(data, "none", "train.objective={kind: distillation, teachers: [nowhere]}")


def test_a_run_goes_on_with_no_other_teacher(data: Path) -> None:
    teacher = test_run.run(data, "teacher", "train.max_steps=1")
    inner = f"{{kind: distillation, teachers: [{teacher}]}}"
    changes = (
        "train.optimiser.schedule.kind=inverse_sqrt",
        f"train.objective={{kind: in_turn, updates: 2, then: {inner}}}",
    )
    test_run.run(data, "student", *changes, "train.max_steps=2")
    teacher.rename(data / "first")
    test_run.run(data, "teacher", "train.max_steps=1", "seed=2")
    with pytest.raises(Problem, match="not what it was when the run began") as caught:
        test_run.run(data, "student", *changes, "train.max_steps=3")
    assert str(caught.value).startswith(str(teacher))
    teacher.rename(data / "second")
    (data / "first").rename(teacher)
    test_run.run(data, "student", *changes, "train.max_steps=3")
