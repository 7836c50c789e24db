"""What is done with a saved model, from lines to lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from transduce.problem import Problem
from transduce.recipe.use import predict
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.bundle(tiny.MODELS["recurrent"])
    folder = tmp_path_factory.mktemp("run") / "model"
    made.save(folder, tensors(made.model), "a card")
    return folder


def test_answers_that_are_not_proven_are_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["abc", "", "dab"]
    list(predict(run, texts, ["search.kind=exact", "search.nodes=1"], show=Show()))
    said = capsys.readouterr().err
    assert "warning: 2 answers are not proven to be the best: lines 1, 3" in said
    list(predict(run, texts, ["search.kind=exact"], show=Show()))
    assert "proven" not in capsys.readouterr().err


def test_runs_answer_together(run: Path) -> None:
    texts = ["abc", "dab"]
    alone = list(predict(run, texts, scores=True, show=Show()))
    twins = list(predict(run, texts, [f"ensemble.runs=[{run}]"], scores=True, show=Show()))
    assert twins == alone
    with pytest.raises(Problem, match="this key is missing"):
        list(predict(run, texts, ["ensemble.average=probabilities"], show=Show()))
    with pytest.raises(Problem, match="no such folder"):
        list(predict(run, texts, ["ensemble.runs=[nowhere]"], show=Show()))
