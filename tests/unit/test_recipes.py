"""The recipes differ in their models alone, and each can be checked and trained."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from transduce import quickstart
from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.models.build import build
from transduce.recipe.check import check
from transduce.train.progress import Show

RECIPES: Final = Path(__file__).resolve().parents[2] / "recipes"
SETS: Final = ("multi30k", "e2e")
FACTOR: Final = 1.2  # between the largest and the smallest model of a data set
ROWS: Final = {"train": 1500, "val": 20, "dev": 20, "test": 10}


def recipes(name: str) -> dict[str, Experiment]:
    return {path.stem: read(path, Experiment) for path in sorted((RECIPES / name).glob("*.yaml"))}


def conditions(made: Experiment) -> dict[str, Any]:
    found = made.model_dump()
    del found["model"], found["train"]["optimiser"]["rate"]
    return found


@pytest.mark.parametrize("name", SETS)
def test_all_is_equal_but_the_model_and_its_rate(name: str) -> None:
    first, *others = recipes(name).values()
    assert len(others) >= 8
    for other in others:
        assert conditions(other) == conditions(first)


def test_a_recipe_is_the_same_model_on_both_sets() -> None:
    one, other = (recipes(name) for name in SETS)
    assert one.keys() == other.keys()
    for name, made in one.items():
        assert other[name].model == made.model
        assert other[name].train.optimiser == made.train.optimiser
        heads = [(RECIPES / s / f"{name}.yaml").read_text("utf-8").split("\n")[0] for s in SETS]
        assert heads[0] == heads[1]


@pytest.mark.parametrize("name", SETS)
def test_models_are_about_equally_large(name: str) -> None:
    sizes = {}
    for recipe, made in recipes(name).items():
        symbols = made.text.source.tokens.model_dump()["size"]
        model = build(made.model, {"source": symbols, "target": symbols})
        sizes[recipe] = sum(parameter.numel() for parameter in model.parameters())
    assert max(sizes.values()) <= FACTOR * min(sizes.values()), sizes


def test_a_recipe_says_where_its_data_comes_from_and_how_it_is_run() -> None:
    for name, terms in (("multi30k", "github.com/multi30k/dataset"), ("e2e", "CC BY-SA 4.0")):
        for recipe in recipes(name):
            comments = (RECIPES / name / f"{recipe}.yaml").read_text("utf-8").partition("seed:")[0]
            assert re.search(r"arXiv:\d{4}\.\d{4,5}", comments)
            assert terms in comments
            assert f"transduce train recipes/{name}/{recipe}.yaml --data " in comments


@pytest.fixture(params=SETS)
def small(
    request: pytest.FixtureRequest,
    shared: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Path]:
    """Return a data set and a folder with its first rows."""
    name = str(request.param)
    whole = quickstart.HERE / "e2e" if name == "e2e" else shared("multi30k/raw")
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    for path in whole.glob("*.gz"):
        rows = gzip.decompress(path.read_bytes()).split(b"\n")[
            : ROWS[re.split(r"[._]", path.name)[0]]
        ]
        (tmp_path / path.name).write_bytes(gzip.compress(b"\n".join(rows) + b"\n"))
    return name, tmp_path


def test_recipes_are_sound_and_train(small: tuple[str, Path]) -> None:
    name, data = small
    for recipe in recipes(name):
        path = RECIPES / name / f"{recipe}.yaml"
        tiny = ["text.source.tokens.size=1000"]
        found = check(read(path, Experiment, tiny), data, Show(quiet=True))
        assert "nothing stands in the way of training" in found
    page = data / "history.md"
    page.write_text(f"# Page\n\n<!-- {name} -->\nold\n<!-- end of {name} -->\n\nmore\n")
    command = [sys.executable, str(RECIPES / "history.py"), "--set", name, "--data", str(data)]
    command += ["--quick", "--runs", str(data / "runs"), "--page", str(page)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    written = page.read_text("utf-8")
    assert "old" not in written
    assert written.endswith(f"<!-- end of {name} -->\n\nmore\n")
    assert all(
        f"[{recipe}](../recipes/{name}/{recipe}.yaml)" in written for recipe in recipes(name)
    )
    assert "<polyline" in (data / f"history-{name}.svg").read_text("utf-8")
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == first.stdout
    assert "step" not in again.stderr  # what is finished is not trained again
