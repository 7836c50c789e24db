"""The recipes that fine-tune lead from files to a table, each a way of its own from one base."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.train.progress import Show

RECIPE: Final = Path(__file__).resolve().parents[2] / "recipes" / "domains"
TUNED: Final = ("full", "lora", "bottleneck")
QUICK: Final = (
    "train.max_steps=2",
    "train.threads=1",
    "train.precision=fp32",
    "validation.every=2",
    "validation.examples=2",
    "search=greedy",
)
TINY: Final = (
    "text.source.tokens.size=330",
    *(f"model.{side}.{size}=16" for side in ("encoder", "decoder") for size in ("width", "inner")),
)


def test_they_differ_in_what_learns_alone() -> None:
    made = {name: read(RECIPE / f"{name}.yaml", Experiment) for name in TUNED}
    conditions = []
    for experiment in made.values():
        found = experiment.model_dump()
        del found["adapt"], found["train"]["optimiser"]["rate"]
        conditions.append(found)
    assert conditions[0] == conditions[1] == conditions[2]
    assert [e.adapt and e.adapt.kind for e in made.values()] == [None, "lora", "bottleneck"]


def test_from_files_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    rows = {
        "tatoeba": "Tom has {0} cats.\t汤姆有{0}只猫。\t#1",
        "bible": "GEN.1.{0}\tAnd there were {0} lights.\t有{0}光。",
        "software": "~Page {0}\t第{0}页\tsw",
    }
    for name, row in rows.items():
        for split, count in (("train", 60), ("dev", 4), ("test", 3)):
            path = tmp_path / name / f"{split}.tsv.gz"
            path.parent.mkdir(exist_ok=True)
            text = "".join(row.format(number) + "\n" for number in range(count))
            path.write_bytes(gzip.compress(text.encode()))
    target = tmp_path / "target"
    script(
        [str(RECIPE / "prepare_domains.py"), *(str(tmp_path / name) for name in rows), str(target)]
    )
    for name in ("base", *TUNED):
        changes = [*QUICK, *(TINY if name == "base" else ())]
        experiment = read(RECIPE / f"{name}.yaml", Experiment, changes)
        assert train(experiment, target, target / "runs" / name, Show(quiet=True)) == 0
    head, _, *table = script([str(RECIPE / "forgetting.py"), str(target), "search=greedy"])
    assert head.count("|") == 7
    assert [line.split(" ")[1] for line in table] == ["base", *TUNED]
    assert all(line.count("(") == (0 if "base" in line else 3) for line in table)


def script(arguments: list[str]) -> list[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]
