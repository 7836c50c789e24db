"""GeoQuery: its preparation, its experiment and its grammar."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.search.constrain import GrammarBlueprint, holds

RECIPE: Final = Path(__file__).resolve().parents[2] / "recipes" / "tasks"
TABLE: Final = """id\tsplit\ten\tfunql
0\ttrain\tGive me the cities in Virginia .\tanswer(city(loc_2(stateid('virginia'))))
1\ttest\tHow long is the Red ?\tanswer(len(riverid('red')))
2\tdev\tWhich states ?\tanswer(state(all))
3\ttrain\tWhich rivers ?\tanswer(river(all))
"""


def test_it_is_laid_out_by_its_parts(tmp_path: Path) -> None:
    table = tmp_path / "table.tsv.gz"
    with gzip.open(table, "wt", encoding="utf-8") as file:
        file.write(TABLE)
    script = RECIPE / "prepare_geoquery.py"
    subprocess.run([sys.executable, str(script), str(table), str(tmp_path / "made")], check=True)
    assert (tmp_path / "made" / "train.tsv").read_text(encoding="utf-8") == (
        "Give me the cities in Virginia .\tanswer(city(loc_2(stateid('virginia'))))\n"
        "Which rivers ?\tanswer(river(all))\n"
    )
    assert (tmp_path / "made" / "test.tsv").read_text(encoding="utf-8").count("\n") == 1


def test_its_experiment_is_sound() -> None:
    assert read(RECIPE / "geoquery.yaml", Experiment).text.target


@pytest.mark.parametrize(
    ("query", "is_one"),
    [
        ("answer(city(loc_2(stateid('virginia'))))", True),
        ("answer(count(exclude(state(all), loc_1(river(all)))))", True),
        ("answer(largest_one(population_1(city(cityid('new york', _)))))", True),
        ("answer(population_1(cityid('austin', 'tx')))", True),
        ("answer(sum(area_1(state(all))))", True),
        ("answer(city(loc_2(stateid('virginia')))", False),  # brackets
        ("answer(city(loc_2(stateid('virginia')))))", False),
        ("answer(largest_one(city(all)))", False),  # of what?
        ("answer(state(count(river(all))))", False),
        ("answer(stateid('virginia'), all)", False),
    ],
)
def test_its_grammar(query: str, is_one: bool) -> None:
    grammar = GrammarBlueprint(path=str(RECIPE / "geoquery.lark")).grammar()
    assert holds(grammar, query) == is_one
