"""The three experiments that come along are sound, and lead to a model and to what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.quickstart import HERE, TASKS, quickstart
from transduce.recipe.check import check
from transduce.train.progress import Show
from transduce.transducer import Transducer

SMALL = (
    *(
        f"model.{side}.{size}=8"
        for side in ("encoder", "decoder")
        for size in ("embedding", "width")
    ),
    "data.test=null",
    "train.max_steps=2",
    "train.threads=1",
    "train.precision=fp32",
    "validation.every=2",
    "validation.examples=2",
    "search=greedy",
)
COUNTS = (42_061, 26_155, 108_926)
LICENCES = {
    "e2e": "CC BY-SA 4.0",
    "tatoeba": "CC BY 2.0 FR",
    "cmudict": "Redistribution and use in source and binary forms",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
def test_a_task_leads_to_a_model_and_says_how_to_use_it(
    task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path("runs", task)
    assert quickstart(task, run, SMALL, Show()) == 0
    said = capsys.readouterr().err
    (use,) = (line.partition("use it")[2] for line in said.split("\n") if "use it" in line)
    echo, text, *predict = shlex.split(use)
    assert (echo, predict) == ("echo", ["|", "transduce", "predict", str(run)])
    assert Transducer.load(run)(text).tokens
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("task", TASKS)
def test_the_data_of_a_task_is_clean(task: str) -> None:
    """No example of one set is in another, hardly a symbol is unknown, nothing is left out."""
    found = check(read(HERE / f"{task}.yaml", Experiment), HERE, Show(quiet=True))
    assert "warning" not in found
    assert "left out" not in found
    assert any(f"train: {count:,} examples" in found for count in COUNTS)


def test_the_data_comes_with_its_licences() -> None:
    for name, says in LICENCES.items():
        (licence,) = (HERE / name).glob("LICENSE*")
        assert says in licence.read_text(encoding="utf-8")


def test_another_task_is_answered_with_those_that_exist() -> None:
    with pytest.raises(Problem) as caught:
        quickstart("pronounciation", Path("run"), (), Show(quiet=True))
    assert "did you mean 'pronunciation'? (data-to-text, translation, pronunciation)" in str(
        caught.value
    )
    assert not Path("run").exists()
