"""The model of many languages and the table of its errors, from files to figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.train.progress import Show

TASKS: Final = Path(__file__).resolve().parents[2] / "recipes" / "tasks"
WORDS: Final = {"dut": ("medium", "dag\td ɑ x\n"), "ady": ("low", "адэ\ta d a\n")}
TINY: Final = (
    *(f"model.{side}.width=16" for side in ("encoder", "decoder")),
    "model.encoder.layers=1",
    "train.max_steps=2",
    "train.precision=fp32",
    "validation.every=2",
    "search.width=2",
)
OWN: Final = (
    "start.run=run",
    "data.train={kind: tsv, path: medium/dut_train.tsv, tag: <dut>}",
    "data.dev={kind: tsv, path: medium/dut_dev.tsv, tag: <dut>}",
    "train.max_steps=2",
    "train.precision=fp32",
    "validation.every=2",
)


@pytest.mark.parametrize("name", sorted(path.name for path in TASKS.glob("*.yaml")))
def test_every_task_can_be_read(name: str) -> None:
    assert read(TASKS / name, Experiment).data.train


def test_every_language_has_a_tag_and_is_learned_and_judged_alike() -> None:
    data = read(TASKS / "sigmorphon.yaml", Experiment).data.model_dump()
    learned, judged = (
        {(one["tag"], one["path"].split("_" + split)[0]) for one in data[split]["of"]}
        for split in ("train", "dev")
    )
    assert learned == judged
    assert len(learned) == 20
    assert all(path.split("/")[1] == tag.strip("<>") for tag, path in learned)


def test_from_words_to_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    parts = []
    for language, (size, row) in WORDS.items():
        (tmp_path / size).mkdir()
        for split, count in (("train", 40), ("dev", 4), ("test", 3)):
            path = tmp_path / size / f"{language}_{split}.tsv"
            path.write_text(row * count, encoding="utf-8")
        parts.append(f"{{kind: tsv, path: {size}/{language}_train.tsv, tag: <{language}>}}")
    corpus = f"{{kind: mixture, of: [{', '.join(parts)}]}}"
    changes = [*TINY, f"data.train={corpus}", f"data.dev={corpus}"]
    experiment = read(TASKS / "sigmorphon.yaml", Experiment, changes)
    assert train(experiment, tmp_path, tmp_path / "run", Show(quiet=True)) == 0

    done = table(tmp_path, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.split("\n") if line]
    assert rows == ["medium", "---", "dut", "mean of 1", "low", "---", "ady", "mean of 1"]
    assert "| 14.7 |" in done.stdout
    assert "| 22.00 |" in done.stdout

    own = read(TASKS / "sigmorphon_language.yaml", Experiment, OWN)
    assert train(own, tmp_path, tmp_path / "dut-1", Show(quiet=True)) == 0
    done = table(tmp_path, tmp_path / "run", tmp_path / "{language}-1")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.split("\n") if line]
    assert rows == ["medium", "---", "dut", "mean of 1"]
    judged = table(tmp_path, tmp_path / "run", "--second", tmp_path / "{language}-1")
    assert judged.returncode == 0, judged.stderr
    assert [line.split("|")[1] for line in judged.stdout.split("\n") if line][2] == " dut "


def test_a_folder_without_words_is_refused_in_a_line(tmp_path: Path) -> None:
    done = table(tmp_path, tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr == f"{tmp_path}: it holds no medium/ or low/LANGUAGE_test.tsv\n"


def table(folder: Path, *runs: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TASKS / "sigmorphon.py"), str(folder), *map(str, runs)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
