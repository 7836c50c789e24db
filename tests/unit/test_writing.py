"""Full disks: training goes on, nothing that was saved is lost, and what is missing comes later."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_run import SETTINGS, data, run, weights

from transduce import folder
from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.run import Run
from transduce.recipe.validate import Validation
from transduce.train import checkpoint
from transduce.train.progress import Show
from transduce.train.track import Journal

__all__ = ["data"]  # a fixture
ROOM = 64  # bytes that a file may have on a full disk


def fill_disk(full: bool) -> None:
    """Let the system refuse to make files longer; what fits is still written, as on a full disk."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM if full else hard, hard))


@pytest.fixture(autouse=True)
def room_again() -> Iterator[None]:
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield
    fill_disk(False)
    signal.signal(signal.SIGXFSZ, before)


def full_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let the disk be full from the validations at these steps on, until the next validation."""
    plain = Run.measure

    def measure(self: Run) -> Validation:
        fill_disk(self.state.step in steps)
        return plain(self)

    monkeypatch.setattr(Run, "measure", measure)


def journal(run: Path, name: str) -> list[tuple[str, int]]:
    lines = (run / name).read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line]
    return [(record.get("kind", "sample"), record["step"]) for record in records]


def test_training_goes_on_while_the_disk_is_full_and_loses_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(data, "whole")
    full_at(monkeypatch, 12)
    assert train(parse(SETTINGS, Experiment, "exp.yaml"), data, data / "run", Show()) == 0
    said = capsys.readouterr().err
    for what in ("the checkpoint", "train.jsonl", "samples.jsonl"):
        assert f"warning: {what} cannot be written (File too large): training goes on" in said
    assert weights(data / "run") == weights(whole)
    for name in ("train.jsonl", "samples.jsonl"):
        assert journal(data / "run", name) == journal(whole, name)
    names = {path.name for path in (data / "run" / "checkpoints").iterdir()}
    assert names == {"step-0000006", "step-0000018", "step-0000024"}


def test_a_run_that_cannot_be_saved_at_its_end_says_so_and_goes_on_when_there_is_room(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(data, "whole")
    with monkeypatch.context() as patch:
        full_at(patch, 12, 18, 24)
        with pytest.raises(Problem) as caught:
            run(data, "run")
    fill_disk(False)
    assert str(caught.value) == (
        f"{data}/run/checkpoints: step 24 could not be saved (File too large); make room or let it "
        "be written, then train again: it goes on from step-0000006"
    )
    folder.verify(data / "run" / "checkpoints" / "step-0000006")
    assert weights(run(data, "run")) == weights(whole)
    assert journal(data / "run", "train.jsonl") == journal(whole, "train.jsonl")


def test_a_run_that_could_never_be_saved_does_not_begin(data: Path) -> None:
    (data / "run").mkdir()
    fill_disk(True)
    with pytest.raises(Problem) as caught:
        run(data, "run")
    fill_disk(False)
    assert "it cannot be written (File too large); make room or let it be written" in str(
        caught.value
    )
    assert checkpoint.every(data / "run" / "checkpoints") == []


def test_of_a_record_that_does_not_fit_nothing_is_in_the_file(tmp_path: Path) -> None:
    made = Journal(tmp_path / "train.jsonl")
    made.add({"kind": "step", "step": 1})
    before = made.path.read_bytes()
    records = [{"kind": "step", "step": step, "text": "x" * 30} for step in (2, 3)]
    fill_disk(True)
    for record in records:
        with pytest.raises(OSError, match="File too large"):
            made.add(record)
        assert made.path.read_bytes() == before
    fill_disk(False)
    assert made.read() == [{"kind": "step", "step": 1}, *records]
    made.add({"kind": "step", "step": 4})
    assert [record["step"] for record in Journal(made.path).read()] == [1, 2, 3, 4]
