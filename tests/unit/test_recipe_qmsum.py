"""The recipe for QMSum leads from its files to a model, in bounded memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.models.build import build

RECIPE: Final = Path(__file__).resolve().parents[2] / "recipes" / "qmsum"
LENGTH, HEADS, BYTES = 9000, 4, 4  # words of a source, and what a table of attention would take
QUICK: Final = (
    "data.test=null",
    *(f"model.{side}.{size}=16" for side in ("encoder", "decoder") for size in ("width", "inner")),
    "model.encoder.layers=2",
    "train.max_steps=2",
    "train.accumulate=1",
    "train.precision=fp32",
    "train.threads=1",
    "validation.examples=1",
    "validation.average=false",
    "metrics=[exact]",
    "search=greedy",
)


def test_its_model_can_be_built() -> None:
    experiment = read(RECIPE / "qmsum.yaml", Experiment)
    build(experiment.model, {"source": 50, "target": 50})


def test_meetings_become_questions_with_answers(tmp_path: Path) -> None:
    turns = [("Grad A", "It 's {vocalsound} late."), ("Grad B", "OK .")]
    meeting = {
        "meeting_transcripts": [{"speaker": who, "content": said} for who, said in turns],
        "general_query_list": [{"query": "Summarize it.", "answer": "It's late."}],
        "specific_query_list": [{"query": "Who?", "answer": "Two."}],
    }
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(meeting) + "\n", encoding="utf-8")
    prepare(tmp_path, tmp_path / "data")
    lines = (tmp_path / "data" / "val.jsonl").read_text(encoding="utf-8").split("\n")
    said = "Grad A : It 's late . Grad B : OK ."
    assert [json.loads(line) for line in lines if line] == [
        {"source": f"Summarize it . | {said}", "target": "It 's late ."},
        {"source": f"Who ? | {said}", "target": "Two ."},
    ]


def test_whole_meetings_are_learned_from_in_little_memory(
    shared: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of full self-attention, for all heads, would not find room beside the rest."""
    most = LENGTH**2 * HEADS * BYTES
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    prepare(shared("qmsum"), tmp_path / "data", "--meetings", "1")
    experiment = tmp_path / "qmsum.yaml"
    experiment.write_bytes((RECIPE / "qmsum.yaml").read_bytes())
    train = [sys.executable, "-m", "transduce", "train"]
    subprocess.run(
        [*train, experiment, "--run", tmp_path / "run", *QUICK],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),
    )
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert facts["train"]["longest_source"] > LENGTH
    journal = (tmp_path / "run" / "train.jsonl").read_text().split("\n")
    assert [json.loads(line)["step"] for line in journal if line] == [2, 2]


def prepare(source: Path, target: Path, *options: str) -> None:
    """Run the recipe's script as its user does."""
    script = RECIPE / "prepare.py"
    subprocess.run([sys.executable, script, source, "--out", target, *options], check=True)
