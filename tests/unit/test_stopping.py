"""Signals and time limits: the run is saved within an update, wherever it is, and goes on alike."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from test_run import LAST, SETTINGS, data, run, weights

from transduce import folder
from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.run import Run
from transduce.recipe.validate import Validation
from transduce.train import checkpoint
from transduce.train.progress import Show

__all__ = ["data"]  # a fixture


def stopped(data: Path, *changes: str) -> int:
    """Train until something asks for an end; return the exit code."""
    experiment = parse(SETTINGS, Experiment, "exp.yaml", changes)
    return train(experiment, data, data / "stopped", Show())


def state(run: Path, name: str = LAST) -> dict[str, object]:
    found = folder.read_json(run / name / "state.json")
    return {key: value for key, value in found.items() if key != "seconds"}


def test_a_signal_in_the_middle_of_a_validation_ends_it_at_once(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The validation is made when the run goes on, and all is as if nothing had happened."""
    whole = run(data, "whole")
    measured: list[int] = []

    def interrupted(self: Run) -> Validation:
        measured.append(self.state.step)
        if self.state.step == 12:
            os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("it goes on measuring")

    plain = Run.measure
    monkeypatch.setattr(
        Run, "measure", lambda self: (interrupted if self.state.step == 12 else plain)(self)
    )
    assert stopped(data) == 128 + signal.SIGUSR1
    assert "stopped and saved at step 12 of 24; train again to go on" in capsys.readouterr().err
    assert measured == [12]
    monkeypatch.setattr(Run, "measure", plain)
    assert stopped(data) == 0
    assert weights(data / "stopped") == weights(whole)
    assert state(data / "stopped") == state(whole)


def test_a_signal_before_training_begins_ends_it_at_once(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def signalled(*given: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on preparing")

    with monkeypatch.context() as patch:
        patch.setattr("transduce.recipe.run.check_lengths", signalled)
        assert stopped(data) == 143
    assert "stopped, and nothing is lost; train again to go on" in capsys.readouterr().err
    assert stopped(data, "train.max_steps=6") == 0


def test_a_signal_while_the_run_is_finished_loses_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(run: Run) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it goes on finishing")

    with monkeypatch.context() as patch:
        patch.setattr("transduce.recipe.finish", signalled)
        assert stopped(data) == 130
    assert stopped(data) == 0
    assert (data / "stopped" / "report.html").exists()


def test_a_run_ends_when_its_time_is_over_and_goes_on_with_another(data: Path) -> None:
    assert stopped(data, "train.max_steps=1", "validation.patience=0") == 0  # all is imported now
    many, limit, step = "train.max_steps=100000", 1, 1
    while step == 1:  # a busy machine may not come to an update in so short a time
        assert stopped(data, many, f"train.time_limit={limit} s", "validation.patience=0") == 75
        *_, last = checkpoint.every(data / "stopped" / "checkpoints")
        step = int(last.name.removeprefix("step-"))
        limit *= 2
    assert step < 100_000
    changes = ("train.time_limit=1 h", f"train.max_steps={step + 1}")
    assert stopped(data, *changes, "validation.patience=0") == 0


def test_what_is_no_time_limit_is_refused_with_its_line() -> None:
    with pytest.raises(Problem) as caught:
        parse(SETTINGS, Experiment, "exp.yaml", ["train.time_limit=3 hours"])
    assert "train.time_limit" in str(caught.value)
    assert "write a number and a unit (s, min, h, d), as in: 3 h" in str(caught.value)


def test_a_run_that_ended_early_does_not_go_on_by_itself(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("train.max_steps=600", "train.optimiser.rate=1e-9", "validation.patience=2")
    done = run(data, "run", *changes)
    before = (done / "train.jsonl").read_bytes()
    run(data, "run", *changes)
    assert (done / "train.jsonl").read_bytes() == before
    longer = run(data, "run", *changes[:2], "validation.patience=3")
    assert len((longer / "train.jsonl").read_bytes()) > len(before)
