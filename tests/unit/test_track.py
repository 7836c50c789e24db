"""What a run writes down: journals that survive a crash, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.train.progress import Show
from transduce.train.track import Journal, TensorBoard

RECORDS: list[dict[str, Any]] = [
    {"kind": "step", "step": 1, "nll": 0.1, "text": "line\nfeed, \u2028, ä and 😀"},
    {"kind": "step", "step": 2, "nll": 1 / 3},
    {"kind": "validation", "step": 2, "scores": {"bleu": 12.5}, "best": True},
    {"kind": "step", "step": 3, "nll": math.inf},
]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "train.jsonl")
    for record in RECORDS:
        made.add(record)
    return made


def test_what_is_read_is_what_was_added(journal: Journal) -> None:
    assert journal.read() == RECORDS
    assert journal.path.read_bytes().count(b"\n") == len(RECORDS)
    assert Journal(journal.path.with_name("none.jsonl")).read() == []


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (1, 1), (2, 3), (3, 4), (9, 4)])
def test_going_back_forgets_what_came_later(journal: Journal, step: int, kept: int) -> None:
    journal.rewind(step)
    assert journal.read() == RECORDS[:kept]
    journal.add(RECORDS[1])
    assert journal.read() == [*RECORDS[:kept], RECORDS[1]]


def test_there_may_be_nothing_to_forget(tmp_path: Path) -> None:
    Journal(tmp_path / "none.jsonl").rewind(3)
    assert list(tmp_path.iterdir()) == []


def test_a_last_line_that_a_crash_cut_off_is_left_out_and_spoils_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "train.jsonl")
    journal.add(RECORDS[0])
    journal.add(RECORDS[1])
    whole = journal.path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole) - 1):
        journal.path.write_bytes(whole[:size])
        assert journal.read() == RECORDS[:1]
    journal.rewind(1)
    journal.add(RECORDS[2])
    assert journal.read() == [RECORDS[0], RECORDS[2]]


def test_zeros_that_a_power_cut_left_behind_are_no_record(journal: Journal) -> None:
    with journal.path.open("ab") as file:
        file.write(bytes(512))
    assert journal.read() == RECORDS
    journal.rewind(3)
    assert b"\0" not in journal.path.read_bytes()


def test_a_damaged_line_before_the_last_is_named(journal: Journal) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([lines[0], b'{"kind": \n', *lines[1:]]))
    with pytest.raises(Problem, match=r"train\.jsonl:2: this line is damaged; remove it"):
        journal.read()


def scalars(target: Path) -> dict[str, list[tuple[int, float]]]:
    """Read what TensorBoard would show."""
    shown = EventAccumulator(str(target)).Reload()
    names = shown.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in shown.Scalars(name)] for name in names}


def test_tensorboard_shows_the_numbers_of_the_journal(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "tensorboard", 0)
    for record in RECORDS:
        board.add(record)
    found = scalars(tmp_path / "tensorboard")
    assert found.keys() == {"step/nll", "validation/bleu"}
    assert found["validation/bleu"] == [(2, 12.5)]
    steps, values = zip(*found["step/nll"], strict=True)
    assert steps == (1, 2, 3)
    assert values == pytest.approx((0.1, 1 / 3, math.inf))


def test_tensorboard_forgets_what_came_later(tmp_path: Path) -> None:
    for begin, end, value in ((0, 5, 1.0), (2, 4, 2.0)):  # the second goes on from step 2
        board = TensorBoard(tmp_path, begin)
        for step in range(begin + 1, end):
            board.add({"kind": "step", "step": step, "nll": value})
    assert scalars(tmp_path) == {"step/nll": [(1, 1.0), (2, 1.0), (3, 2.0)]}


def test_without_tensorboard_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(Problem) as caught:
        TensorBoard(tmp_path / "tensorboard", 0)
    assert str(caught.value) == (
        "train.tensorboard: this needs the package tensorboard; run: pip install 'transduce[track]'"
    )
    assert list(tmp_path.iterdir()) == []


SETTINGS = """
data: {train: {kind: tsv, path: pairs.tsv}, dev: {kind: tsv, path: pairs.tsv}}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 4, width: 4}
  decoder: {kind: recurrent, embedding: 4, width: 4}
train:
  max_steps: 6
  batch: {tokens: 32}
  optimiser: {schedule: inverse_sqrt}
  threads: 1
  precision: fp32
  log_every: 1
validation: {every: 2, examples: 2}
metrics: [exact]
"""


def run(home: Path, *changes: str) -> list[dict[str, Any]]:
    """Train, or go on; return what is in the journal."""
    experiment = parse(SETTINGS, Experiment, "exp.yaml", changes)
    assert train(experiment, home, home / "run", Show(quiet=True)) == 0
    lines = (home / "run" / "train.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    rows = (f"{number:02d}\t{number:02d}\n" for number in range(20))
    (tmp_path / "pairs.tsv").write_text("".join(rows), encoding="utf-8")
    return tmp_path


def test_a_run_that_died_before_it_saved_begins_anew_and_so_does_its_journal(home: Path) -> None:
    (home / "run").mkdir()
    stale = '{"kind": "step", "step": 1, "nll": 9.0}\n{"kind": "step", "st'
    (home / "run" / "train.jsonl").write_text(stale, encoding="utf-8")
    records = [record for record in run(home) if record["kind"] == "step"]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[0]["nll"] != 9.0


def test_tensorboard_shows_a_run_in_parts_as_one(home: Path) -> None:
    run(home, "train.tensorboard=true", "train.max_steps=3")
    records = run(home, "train.tensorboard=true")
    shown = scalars(home / "run" / "tensorboard")
    for kind, name in (("step", "nll"), ("step", "learning_rate"), ("validation", "exact")):
        flat = [record | record.get("scores", {}) for record in records if record["kind"] == kind]
        steps, values = zip(*shown[f"{kind}/{name}"], strict=True)
        assert list(steps) == [record["step"] for record in flat]
        assert values == pytest.approx([record[name] for record in flat])
