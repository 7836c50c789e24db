"""The moving average of the weights: what it is, where it counts, and going on with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_start import BASE, QUIET

from transduce import folder
from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.train import checkpoint
from transduce.train.checkpoint import AVERAGE, OPTIMISER, STATE, WEIGHTS, tensors
from transduce.train.moving_average import MovingAverage


def test_it_is_the_weighted_sum_of_all_weights_so_far() -> None:
    model = tiny.bundle(tiny.MODELS["recurrent"]).model
    average = MovingAverage(model, 0.3)
    wanted = {name: value.clone() for name, value in tensors(model).items()}
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model, step)
        kept = min(0.3, (1 + step) / (10 + step))
        for name, value in tensors(model).items():
            wanted[name] = kept * wanted[name] + (1 - kept) * value
    for name, value in average.values.items():
        torch.testing.assert_close(value, wanted[name])


def test_it_takes_the_place_of_the_weights_for_a_while() -> None:
    model = tiny.bundle(tiny.MODELS["mixed"]).model
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    before = {name: value.clone() for name, value in tensors(model).items()}
    with average.in_place(model):
        for name, value in tensors(model).items():
            assert torch.equal(value, average.values[name])
    for name, value in tensors(model).items():
        assert torch.equal(value, before[name])
        assert not torch.equal(value, average.values[name])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    rows = [f"{number:03d}\t{f'{number:03d}'[::-1]}\n" for number in range(120)]
    (tmp_path / "train.tsv").write_text("".join(rows[:100]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(rows[100:]), encoding="utf-8")
    return tmp_path


def run(data: Path, name: str, *changes: str) -> Path:
    changes = ("train.optimiser.schedule.kind=inverse_sqrt", "validation.keep=1", *changes)
    assert train(parse(BASE, Experiment, "t", changes), data, data / name, QUIET) == 0
    return data / name


def test_a_run_goes_on_with_it_bit_for_bit_and_leaves_it_as_the_model(data: Path) -> None:
    averaged = "train.moving_average=0.9"
    whole = run(data, "whole", averaged)
    run(data, "parts", averaged, "train.max_steps=6")
    parts = run(data, "parts", averaged)
    last = checkpoint.name(12)
    for name in (WEIGHTS, OPTIMISER, AVERAGE):
        one, other = (folder.digest(r / "checkpoints" / last / name) for r in (whole, parts))
        assert one == other, name
    left = load_file(whole / "model" / WEIGHTS)
    steps = [whole / "checkpoints" / checkpoint.name(step) for step in (6, 12)]
    kept = [load_file(step / AVERAGE) for step in steps]
    raw = [load_file(step / WEIGHTS) for step in steps]
    assert any(all(torch.equal(left[n], one[n]) for n in left) for one in kept)
    assert not any(all(torch.equal(left[n], one[n]) for n in left) for one in raw)
    plain = run(data, "plain")
    assert not list(plain.rglob(AVERAGE)), "nothing is kept where nothing is asked for"
    before, after = (r / "checkpoints" / last / WEIGHTS for r in (plain, whole))
    assert folder.digest(before) == folder.digest(after), "what is learned is the same"


def test_the_mean_of_checkpoints_is_that_of_what_counts(tmp_path: Path) -> None:
    for number in (1, 2):
        values = {"w": torch.full((2,), float(number))}
        inside = tmp_path / str(number)
        folder.write(inside, lambda fresh, v=values: _write(fresh, v))  # type: ignore[misc]
    mean = checkpoint.average([tmp_path / "1", tmp_path / "2"])
    assert mean["w"].tolist() == [15.0, 15.0]


def _write(fresh: Path, values: dict[str, torch.Tensor]) -> None:
    folder.write_json(fresh / STATE, {})
    save_file(values, fresh / WEIGHTS)
    save_file({"w": 10 * values["w"]}, fresh / AVERAGE)
