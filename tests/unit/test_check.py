"""Looking before leaping: counts, leaks and unknown symbols, and nothing is trained."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe.check import check
from transduce.train.progress import Show

SETTINGS = """
data:
  train: {kind: tsv, path: train.tsv}
  dev: {kind: tsv, path: dev.tsv, group: true}
  test: {kind: tsv, path: test.tsv, group: true}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 16}
  decoder: {kind: recurrent, embedding: 8, width: 16}
train: {max_steps: 100, batch: {tokens: 40}, accumulate: 2}
metrics: [exact]
"""
QUIET = Show(quiet=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("train.tsv").write_text("ab\tBA\nbc\tCBC\nabc\tCB\n", encoding="utf-8")
    Path("dev.tsv").write_text("cab\tBAC\ncab\tBA\nca\tAC\n", encoding="utf-8")
    Path("test.tsv").write_text("ba\tAB\n", encoding="utf-8")
    return tmp_path


def found(*changes: str) -> list[str]:
    experiment = parse(SETTINGS, Experiment, "exp.yaml", changes)
    return check(experiment, Path(), QUIET).split("\n")


def warnings(*changes: str) -> list[str]:
    lines = found(*changes)
    assert lines[-1] == "nothing stands in the way of training"
    return [line for line in lines if line.startswith("warning")]


def test_everything_is_counted() -> None:
    assert found() == [
        "train: 3 examples (source tokens 7, longest source 3, unknown source 0, "
        "target tokens 7, longest target 3, unknown target 0)",
        "dev: 2 examples (source tokens 5, longest source 3, unknown source 0, "
        "target tokens 7, longest target 3, unknown target 0)",
        "test: 1 examples",
        "vocabulary: source 6, target 6 symbols",
        "model: 0.00 M parameters",
        "training: 100 updates of up to 80 tokens, about 1142.9 epochs",
        "nothing stands in the way of training",
    ]


def test_nothing_is_trained_and_nothing_written_but_the_cache(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name for path in home.iterdir()}
    monkeypatch.setattr(torch.Tensor, "backward", None)
    monkeypatch.setattr(torch.optim, "AdamW", None)
    first = found()
    assert {path.name for path in home.iterdir()} == before | {"cache"}
    assert found() == first, "the cache says the same"


def test_what_is_left_out_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("train.tsv").open("a", encoding="utf-8") as file:
        file.write("\tempty\n")
    with pytest.raises(Problem, match=r"train.tsv:4: the source is empty"):
        found()
    experiment = parse(SETTINGS, Experiment, "exp.yaml", ["data.train.on_bad_line=skip"])
    (train, *_) = check(experiment, Path(), Show()).split("\n")
    assert re.match(r"train: 3 examples .*; 1 left out$", train)
    assert "train.tsv:4" in capsys.readouterr().err


def test_examples_of_one_set_in_another_are_counted() -> None:
    assert warnings() == []
    Path("dev.tsv").write_text("cab\tBAC\nab\tBB\nab\tBA\nbc\tCB\n", encoding="utf-8")
    Path("test.tsv").write_text("abc\tCB\nabc\tCC\ncab\tBAC\nab\tBA\n", encoding="utf-8")
    assert warnings() == [
        "warning: 1 dev examples are also in train; the dev score will flatter",
        "warning: 2 test examples are also in train; the test score will flatter",
        "warning: 2 test examples are also in dev; the test score will flatter",
    ]
    assert len(warnings("data.test=null")) == 1


def test_unknown_symbols_are_told_with_what_helps() -> None:
    Path("dev.tsv").write_text("cabx\tBAC\n", encoding="utf-8")
    (only,) = warnings()
    assert only == (
        "warning: 25.0% of the source symbols in dev are unknown; use sentencepiece or bytes, or "
        "byte_fallback: true, in text.source.tokens"
    )
    assert warnings("text.source.tokens.byte_fallback=true") == []
    assert warnings("text.source.tokens=bytes") == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("data.dev.path=dve.tsv", "dve.tsv: there is no such file; did you mean 'dev.tsv'?"),
        ("data.test.path=none.tsv", "none.tsv: there is no such file"),
        ("data.limits.target=2", "train.tsv:2: the target has 3 symbols"),
        ("model.encoder.width=7", "7 is odd; make it even"),
        ("model.tie=all", "model.tie:"),
        ("model.decoder.connection=dot", None),
        ("metrics=[{kind: rouge, tokenize: ascii}]", None),
        ("text.source.tokens={kind: sentencepiece, size: 20}", "20 pieces are too few"),
    ],
)
def test_what_would_stop_training_stops_here(change: str, says: str | None) -> None:
    if says is None:
        assert warnings(change) == []
        return
    with pytest.raises(Problem) as caught:
        found(change)
    assert says in str(caught.value)


def test_metrics_that_cannot_score_this_text_are_found_before_training() -> None:
    Path("dev.tsv").write_text("ab\t猫\n", encoding="utf-8")
    with pytest.raises(Problem, match="ROUGE with tokenize: ascii finds no word"):
        found("metrics=[rouge]")


def test_a_machine_that_lacks_what_is_asked_for_is_found_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Problem, match=r"train.device: torch finds no GPU here"):
        found("train.device=cuda")
    for name in list(sys.modules):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(Problem, match=r"train.tensorboard: this needs the package tensorboard"):
        found("train.tensorboard=true")


def test_new_words_need_a_vocabulary_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    copies = ["text.joint=true", "model.head={kind: pointer_generator, new_words: 2}"]
    spelt = "text.source.tokens={kind: characters, byte_fallback: true}"
    with pytest.raises(Problem, match=r"^model\.head\.new_words: nothing is new to .*: false in"):
        found(*copies, spelt)
    for tokens, count in (("characters", 1), ("{kind: characters, min_count: 4}", 0)):
        changes = [*copies, f"text.source.tokens={tokens}"]
        experiment = parse(SETTINGS, Experiment, "exp.yaml", changes)
        check(experiment, Path(), Show())
        assert capsys.readouterr().err.count("teaches the model to copy new words") == count


@pytest.mark.parametrize(
    ("side", "path", "most", "says"),
    [
        ("encoder", "train.tsv", 3, "train.tsv:3: the source has 4 symbols with its end, more"),
        ("encoder", "test.tsv", 4, "test.tsv:2: the source has 5 symbols with its end, more than"),
        ("decoder", "train.tsv", 3, "train.tsv:2: the target has 4 symbols with its end, more"),
    ],
)
def test_texts_that_have_no_positions_are_found_before_training(
    side: str, path: str, most: int, says: str
) -> None:
    Path("test.tsv").write_text("ba\tAB\nabca\tABCAB\n", encoding="utf-8")
    learned = f"positions: {{kind: learned, longest: {most}}}"
    sizes = "width: 8, layers: 1, heads: 2, inner: 8"
    with pytest.raises(Problem) as caught:
        found(f"model.{side}={{kind: transformer, {sizes}, {learned}}}")
    setting = f"model.{side}.positions.longest"
    name = "source" if side == "encoder" else "target"
    assert str(caught.value).startswith(says)
    assert str(caught.value).endswith(
        f"positions; raise {setting}, or set data.limits.{name}: {most - 1} and on_bad_line: skip"
    )
    longer = learned.replace(str(most), "5")
    assert warnings(f"model.{side}={{kind: transformer, {sizes}, {longer}}}") == []


def test_what_an_objective_lacks_is_said_before_training() -> None:
    with pytest.raises(Problem, match=r"train\.objective: the coverage loss"):
        found("train.objective=coverage", "model.decoder.connection=fixed")
    found("train.objective=coverage")


def test_objectives_are_tried_as_they_are_first_and_last() -> None:
    late = "train.objective={kind: in_turn, updates: 99, then: r_drop}"
    found(late)
    with pytest.raises(Problem, match=r"train\.objective: r_drop compares two passes"):
        found(late, "model.encoder.dropout=0", "model.decoder.dropout=0")
    found("train.objective={kind: minimum_risk, metric: exact, samples: 3}")


def test_objectives_are_tried_on_what_training_begins_with() -> None:
    Path("train.tsv").write_text("ab\tBA\t0-0\nbc\tCBC\t\nabc\tCB\t\n", encoding="utf-8")
    found("train.objective=guided_alignment", "data.train.alignment=3", "text.source.tokens=words")
    with pytest.raises(Problem, match=r"there are 1 layers|attention to the source is in 1 layers"):
        found(
            "train.objective={kind: guided_alignment, layer: 2}",
            "data.train.alignment=3",
            "text.source.tokens=words",
        )


@pytest.mark.parametrize("inner", ["minimum_risk", "{kind: self_critical, metric: exact}"])
@pytest.mark.parametrize(
    ("outer", "said"),
    [
        ("kind: scheduled_sampling", "scheduled_sampling changes which tokens of the true targets"),
        ("kind: token_dropout", "no true targets that could have holes; set target: 0"),
        ("kind: token_dropout, source: 0", "no true targets that could have holes; set target: 0"),
    ],
)
def test_what_would_change_nothing_is_refused(outer: str, inner: str, said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        found(f"train.objective={{{outer}, objective: {inner}}}")
    assert str(caught.value).startswith("train.objective: ")


@pytest.mark.parametrize(
    "objective",
    [
        "{kind: token_dropout, target: 0, objective: {kind: minimum_risk, metric: exact}}",
        "{kind: token_dropout, objective: {kind: self_critical, objective: cross_entropy}}",
        "{kind: self_critical, metric: exact, objective: {kind: scheduled_sampling}}",
        "{kind: scheduled_sampling, objective: {kind: in_turn, updates: 5, then: minimum_risk}}",
    ],
)
def test_what_changes_something_is_not_refused(objective: str) -> None:
    found(f"train.objective={objective}")
