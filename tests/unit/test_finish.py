"""The end of a run: which weights are kept, what is scored, and what is written down."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from transduce import folder
from transduce.blueprint import parse
from transduce.bundle import Bundle
from transduce.experiment import Experiment
from transduce.recipe.finish import choose, draw_attention, finish
from transduce.recipe.finish import test as score
from transduce.recipe.prepare import prepare
from transduce.recipe.run import Run
from transduce.recipe.validate import Validation
from transduce.train import checkpoint
from transduce.train.progress import Show
from transduce.train.signals import Stop

SETTINGS = """
data:
  train: {kind: tsv, path: pairs.tsv}
  dev: {kind: tsv, path: dev.tsv, group: true}
  test: {kind: tsv, path: dev.tsv, group: true}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 4, width: 4}
  decoder: {kind: recurrent, embedding: 4, width: 4}
train: {max_steps: 8, batch: {tokens: 32}, threads: 1, precision: fp32}
validation: {every: 2, examples: 2, keep: 3, choose_by: loss}
metrics: [exact, cer]
published: [{name: somebody, metric: cer, value: 12.5}]
"""
Weights = dict[str, Tensor]
Learn = Callable[..., Run]


@pytest.fixture
def learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learn:
    """Train a run to its last update, and no further."""
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    rows = [f"{number:02d}\t{number:02d}\n" for number in range(20)]
    (tmp_path / "pairs.tsv").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join([*rows[:3], "00\t0\n"]), encoding="utf-8")

    def to_the_last_update(*changes: str) -> Run:
        experiment = parse(SETTINGS, Experiment, "exp.yaml", changes)
        prepared = prepare(experiment, tmp_path, tmp_path / "run", Show(quiet=True))
        run = Run(experiment, tmp_path / "run", prepared, Show())
        run.resume()
        run.learn(Stop())
        return run

    return to_the_last_update


def at(run: Run, *ranks: int) -> Weights:
    """Return the mean of kept checkpoints; rank 0 is the best."""
    steps = [run.best.kept[rank][1] for rank in ranks]
    return checkpoint.average(run.checkpoints / checkpoint.name(step) for step in steps)


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def damage(run: Run, rank: int) -> Path:
    path = run.checkpoints / checkpoint.name(run.best.kept[rank][1]) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    return path


@pytest.mark.parametrize("better", [True, False])
def test_the_mean_of_the_kept_weights_is_taken_if_it_is_better(
    learn: Learn, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    run = learn()
    best = run.best.kept[0][0]
    quality = best + 0.1 if better else best
    monkeypatch.setattr(run, "measure", lambda: Validation({}, quality, []))
    weights, origin = choose(run)
    assert equal(weights, at(run, 0, 1, 2) if better else at(run, 0))
    steps = sorted(step for _, step in run.best.kept)
    wanted = f"the mean of steps {steps[0]}, {steps[1]}, {steps[2]}"
    assert origin == (wanted if better else f"step {run.best.kept[0][1]}")


@pytest.mark.parametrize("change", ["validation.average=false", "validation.keep=1"])
def test_the_mean_is_tried_only_if_there_is_one(
    learn: Learn, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run = learn(change)
    monkeypatch.setattr(run, "measure", None)
    weights, _ = choose(run)
    assert equal(weights, at(run, 0))


def test_a_kept_checkpoint_that_was_damaged_is_named_and_left_out(
    learn: Learn, capsys: pytest.CaptureFixture[str]
) -> None:
    run = learn("validation.average=false")
    path = damage(run, 0)
    weights, origin = choose(run)
    assert f"warning: {path}: the file is damaged" in capsys.readouterr().err
    assert equal(weights, at(run, 1))
    assert origin == f"step {run.best.kept[1][1]}"


def test_a_run_ends_even_if_every_kept_checkpoint_was_damaged(learn: Learn) -> None:
    run = learn()
    for rank in range(3):
        damage(run, rank)
    weights, origin = choose(run)
    assert equal(weights, checkpoint.tensors(run.bundle.model))
    assert origin == "step 8"


def test_all_that_is_promised_is_written(learn: Learn, capsys: pytest.CaptureFixture[str]) -> None:
    run = learn()
    weights, origin = choose(run)
    page = finish(run)
    assert page == run.folder / "report.html"
    kept = Bundle.load(run.folder / "model")
    assert equal(checkpoint.tensors(kept.model), weights)
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"weights: {origin}" in card
    assert "trained on 20 examples" in card
    scores = folder.read_json(run.folder / "scores.json")
    assert scores["published"] == [{"name": "somebody", "metric": "cer", "value": 12.5}]
    assert scores["test"].keys() == {"exact", "cer"}
    assert f"* {scores['test']['cer']['name']} " in card
    assert (run.folder / "test.predictions.txt").read_text(encoding="utf-8").count("\n") == 3
    said = capsys.readouterr().err
    assert "test: Exact match" in said
    assert "published: cer 12.5 (somebody)" in said
    maps = json.loads((run.folder / "attention.json").read_text(encoding="utf-8"))
    assert len(maps) == 3, "as many dev examples as there are"
    for shown in maps:
        assert shown["source"][-1] == "</s>"
        assert len(shown["weights"]) == len(shown["target"])
        assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in shown["weights"])


def test_attention_is_drawn_where_there_is_room(
    learn: Learn, capsys: pytest.CaptureFixture[str]
) -> None:
    run = learn()
    sizes = sorted(len(example.sources["source"]) + 1 for example in run.prepared.dev)
    for longest in (sizes[0], sizes[0] - 1):
        draw_attention(run, longest)
        maps = folder.read_json(run.folder / "attention.json")
        assert len(maps) == sum(size <= longest for size in sizes)
        assert all(len(shown["source"]) <= longest for shown in maps)
    assert "no attention is drawn" in capsys.readouterr().err


def test_without_a_test_set_nothing_is_scored(learn: Learn) -> None:
    run = learn("data.test=null", "model.decoder.connection=fixed")
    finish(run)
    assert not (run.folder / "scores.json").exists()
    assert folder.read_json(run.folder / "attention.json") == []
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "* not scored yet" in card


def test_a_prediction_is_a_line_whatever_is_in_it(
    learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = learn()
    texts = ["two\nlines", "\u2028", ""]
    module = sys.modules["transduce.recipe.finish"]
    monkeypatch.setattr(module, "predict_and_score", lambda *_, **__: (texts, []))
    monkeypatch.setattr(run, "names", [])
    score(run)
    written = (run.folder / "test.predictions.txt").read_bytes().decode()
    assert written.split("\n") == ["two lines", "\u2028", "", ""]
