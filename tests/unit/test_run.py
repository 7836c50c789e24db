"""A training run goes on bit for bit, survives damage, and refuses what it cannot go on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from transduce import folder
from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.use import evaluate
from transduce.train.precision import Precision, Setting
from transduce.train.progress import Show
from transduce.transducer import Transducer

SETTINGS = """
data:
  train: {kind: tsv, path: train.tsv}
  dev: {kind: tsv, path: dev.tsv, group: true}
  test: {kind: tsv, path: dev.tsv, group: true}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 16, dropout: 0.2}
  decoder: {kind: recurrent, embedding: 8, width: 16, dropout: 0.2}
train: {max_steps: 24, batch: {tokens: 64}, threads: 1, precision: fp32, log_every: 5}
validation: {every: 6, examples: 4, keep: 2}
metrics: [exact]
"""
LAST = "checkpoints/step-0000024"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    words = [f"{number:03d}" for number in range(120)]
    rows = [f"{word}\t{word[::-1]}\n" for word in words]
    (tmp_path / "train.tsv").write_text("".join(rows[:100]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(rows[100:]), encoding="utf-8")
    (tmp_path / "exp.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def run(data: Path, name: str, *changes: str) -> Path:
    experiment = parse(SETTINGS, Experiment, "exp.yaml", changes)
    assert train(experiment, data, data / name, Show(quiet=True)) == 0
    return data / name


def weights(run: Path, checkpoint: str = LAST) -> tuple[str, str]:
    names = ("weights.safetensors", "optimiser.safetensors")
    first, second = (folder.digest(run / checkpoint / name) for name in names)
    return first, second


def test_a_run_leaves_all_that_is_promised(data: Path) -> None:
    done = run(data, "run")
    for name in ("experiment.yaml", "report.html", "train.jsonl", "samples.jsonl", "scores.json"):
        assert (done / name).stat().st_size > 0, name
    records = [json.loads(line) for line in (done / "train.jsonl").read_text().split("\n") if line]
    assert [r["step"] for r in records if r["kind"] == "validation"] == [6, 12, 18, 24]
    assert {r["step"] for r in records if r["kind"] == "step"} >= {5, 10, 15, 20, 24}
    assert "exact" in json.loads((done / "scores.json").read_text())["test"]
    folder.verify(done / "model")
    answer = Transducer.load(done)("012", alternatives=2, attention=True)
    assert answer.tokens
    assert answer.attention is not None
    assert answer.attention.shape == (len(answer.tokens), len(answer.source_pieces))


def test_the_test_score_is_that_of_the_model_that_is_left(data: Path) -> None:
    drops = ("model.encoder.dropout=0.9", "model.decoder.dropout=0.9", "metrics=[chrf]")
    done = run(data, "run", "train.max_steps=60", "train.optimiser.rate=1e-2", *drops)
    written = json.loads((done / "scores.json").read_text())["test"]["chrf"]["value"]
    found, *_ = evaluate(done, [data / "dev.tsv"])
    assert found.value == pytest.approx(written, abs=1e-9)


def test_the_same_command_twice_gives_the_same_bits(data: Path) -> None:
    assert weights(run(data, "one")) == weights(run(data, "two"))


def test_more_steps_later_are_the_same_run(data: Path) -> None:
    whole = run(data, "whole", "train.optimiser.schedule.kind=inverse_sqrt")
    run(data, "parts", "train.max_steps=12", "train.optimiser.schedule.kind=inverse_sqrt")
    parts = run(data, "parts", "train.optimiser.schedule.kind=inverse_sqrt")
    assert weights(whole) == weights(parts)


def test_activations_may_be_recomputed_from_the_middle_of_a_run_on(data: Path) -> None:
    schedule = "train.optimiser.schedule.kind=inverse_sqrt"
    whole = run(data, "whole", schedule)
    run(data, "parts", schedule, "train.max_steps=12")
    assert weights(whole) == weights(run(data, "parts", schedule, "train.recompute=true"))


def start(data: Path, name: str) -> subprocess.Popen[str]:
    """Run a training of many steps as a real process, and wait until it is under way."""
    command = [sys.executable, "-m", "transduce", "train", "exp.yaml", "train.max_steps=3000"]
    command += ["validation.every=50", "validation.patience=0", "train.log_every=1"]
    process = subprocess.Popen(
        [*command, "--run", name], cwd=data, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    journal = data / name / "train.jsonl"
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_text().count("\n") < 70:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_goes_on_bit_for_bit(data: Path, number: signal.Signals, code: int) -> None:
    process = start(data, "stopped")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    *_, saved = sorted((data / "stopped" / "checkpoints").glob("step-*"))
    step = folder.read_json(saved / "state.json")["step"]
    assert 50 <= step < 3000
    changes = [f"train.max_steps={step + 10}", "train.log_every=1"]
    changes += ["validation.every=50", "validation.patience=0"]
    last = f"checkpoints/step-{step + 10:07d}"
    assert weights(run(data, "stopped", *changes), last) == weights(
        run(data, "whole", *changes), last
    )
    lines = (data / "stopped" / "train.jsonl").read_text().split("\n")
    steps = [r["step"] for r in map(json.loads, filter(None, lines)) if r["kind"] == "step"]
    assert steps == list(range(1, step + 11))


@pytest.mark.parametrize("file", ["weights.safetensors", "optimiser.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    data: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(data, "whole")
    done = run(data, "damaged")
    path = done / LAST / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    train(parse(SETTINGS, Experiment), data, done, Show())
    said = capsys.readouterr().err
    assert str(path) in said
    assert "going on from step 18" in said
    assert weights(done) == weights(whole)


def test_another_experiment_in_the_same_folder_is_refused(data: Path) -> None:
    run(data, "run")
    with pytest.raises(Problem, match="other settings"):
        run(data, "run", "model.encoder.width=32")


def test_early_stopping_ends_a_run_that_gets_no_better(data: Path) -> None:
    done = run(
        data, "run", "train.max_steps=600", "train.optimiser.rate=1e-9", "validation.patience=2"
    )
    records = [json.loads(line) for line in (done / "train.jsonl").read_text().split("\n") if line]
    assert len([r for r in records if r["kind"] == "validation"]) == 3


def test_changed_data_is_noticed(data: Path) -> None:
    run(data, "run", "train.max_steps=6")
    (data / "train.tsv").write_text("1\t2\n" * 50, encoding="utf-8")
    with pytest.raises(Problem, match="data"):
        run(data, "run")


def test_changed_dev_data_is_noticed(data: Path) -> None:
    run(data, "run", "train.max_steps=6")
    (data / "dev.tsv").write_text("1\t2\n" * 50, encoding="utf-8")
    with pytest.raises(Problem, match="the dev data, which decides what is the best model, is not"):
        run(data, "run")


def test_another_end_of_a_schedule_that_was_followed_is_refused(data: Path) -> None:
    """In its warm-up a schedule does not know its end yet."""
    cosine = "train.optimiser.schedule={kind: cosine, warmup: 8}"
    begun = run(data, "run", cosine, "train.max_steps=7")
    run(data, "run", cosine, "train.max_steps=12")
    with pytest.raises(Problem) as caught:
        run(data, "run", cosine, "train.max_steps=24")
    assert str(caught.value) == (
        f"{begun}: this run has made 12 updates at rates that the schedule cosine laid out for 12 "
        "updates, not 24; set train.max_steps: 12, or choose another folder to begin anew"
    )
    run(data, "run", cosine, "train.max_steps=12")


def test_the_number_type_is_that_of_the_beginning(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one is faster is measured, and another time another one may win."""
    asked: list[str] = []

    def measured(setting: Setting, device: torch.device) -> Precision:
        asked.append(setting)
        return Precision(torch.bfloat16 if setting == "bf16" else torch.float32, "test")

    monkeypatch.setattr("transduce.recipe.same.choose", measured)
    begun = run(data, "run", "train.precision=auto", "train.max_steps=1")
    facts = folder.read_json(begun / "environment.json")
    folder.write_json(begun / "environment.json", facts | {"precision": "bf16"})
    run(data, "run", "train.precision=auto", "train.max_steps=2")
    assert asked == ["auto", "bf16"]


def test_two_processes_do_not_train_in_one_folder(data: Path) -> None:
    with (
        folder.alone(data / "run", wait=False),
        pytest.raises(Problem, match="another process is at work"),
    ):
        run(data, "run")
