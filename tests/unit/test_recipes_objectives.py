"""The recipes of objectives differ in what is minimised alone, and each can be checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
from test_check import QUIET
from test_check import home as home  # tiny data, and nothing is left behind

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.check import check

RECIPES: Final = sorted((Path(__file__).resolve().parents[2] / "recipes/objectives").glob("*.yaml"))
SMALL: Final = (
    "text.source.tokens=characters",
    "model.encoder={kind: recurrent, embedding: 8, width: 8}",
    "model.decoder={kind: recurrent, embedding: 8, width: 8}",
    *(f"data.{name}.path={name}.tsv" for name in ("train", "dev", "test")),
)


def conditions(made: Experiment) -> dict[str, Any]:
    found = made.model_dump()
    del found["train"]["objective"]
    return found


def test_all_is_equal_but_the_objective() -> None:
    made = {path.stem: read(path, Experiment) for path in RECIPES}
    plain = made.pop("cross_entropy")
    assert len(made) >= 7
    for name, other in made.items():
        assert conditions(other) == conditions(plain)
        objective = other.train.objective.model_dump()
        assert name in (objective["kind"], objective.get("then", {}).get("kind"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_where_it_comes_from_and_is_sound(path: Path) -> None:
    comments = path.read_text("utf-8").partition("seed:")[0]
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", comments)
    assert "CC BY-SA 4.0" in comments
    assert f"transduce train recipes/objectives/{path.name} --data " in comments
    experiment = read(path, Experiment, SMALL)
    if path.stem == "distillation":
        with pytest.raises(Problem, match="runs/cross_entropy: no such folder"):
            check(experiment, Path(), QUIET)
        few = [*SMALL, "train.max_steps=1", "validation.every=1"]
        teacher = read(path.with_name("cross_entropy.yaml"), Experiment, few)
        assert train(teacher, Path(), Path("runs/cross_entropy"), QUIET) == 0
    assert "nothing stands in the way of training" in check(experiment, Path(), QUIET)
