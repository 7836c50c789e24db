"""Runs that began from another model go on: with that one, or without it once it is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_start import BASE, QUIET, digest, tune
from test_start import data as data

from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train


def test_a_run_goes_on_with_no_other_base(data: Path) -> None:
    tune(data, "tuned", "train.max_steps=6")
    train(parse(BASE, Experiment, "t", ["seed=2"]), data, data / "other", QUIET)
    (data / "base").rename(data / "old")
    tune(data, "tuned", "start.run=old")  # moved, and the same
    with pytest.raises(Problem, match="not the model that the run began from"):
        tune(data, "tuned", "start.run=other")


def test_a_run_that_has_begun_needs_its_base_no_more(data: Path) -> None:
    changes = ("train.optimiser.schedule.kind=inverse_sqrt", "start.vocabulary=extend")
    whole = tune(data, "whole", *changes)
    tune(data, "parts", *changes, "train.max_steps=6")
    added = (*changes[:1], "adapt.kind=lora")
    tune(data, "adapted", *added, "train.max_steps=6")
    shutil.rmtree(data / "base")
    assert digest(whole) == digest(tune(data, "parts", *changes))
    settings = parse((data / "parts" / "experiment.yaml").read_text(), Experiment)
    assert settings == parse((data / "whole" / "experiment.yaml").read_text(), Experiment)
    for name, other in (("new", changes), ("adapted", added)):
        with pytest.raises(Problem, match="no such folder"):
            tune(data, name, *other)
    for path in (data / "parts" / "checkpoints").glob("step-*/weights.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(Problem, match="no such folder"):
        tune(data, "parts", *changes)
