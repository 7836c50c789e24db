"""From text in one language to a model of pairs, by the command line alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from transduce import folder
from transduce.cli import main
from transduce.transducer import Transducer

MODEL = """
model:
  encoder: {kind: recurrent, embedding: 8, width: 16}
  decoder: {kind: recurrent, embedding: 8, width: 16}
train: {max_steps: 10, batch: {tokens: 200}, threads: 1, precision: fp32}
validation: {every: 5, examples: 4, choose_by: loss}
"""
PRETRAINING = """
data:
  train:
    kind: mixture
    of: [{kind: denoise, path: mono, noise: [permute, infill]},
      {kind: denoise, path: mono, noise: [spans]}]
  dev: {kind: denoise, path: mono, noise: [mass]}
text: {source: {tokens: words}, joint: true, reserved: [<up>, <BT>]}
"""
TRAINING = """
start: {run: runs/pre}
data:
  train: {kind: mixture, of: [{kind: tsv, path: pairs.tsv, tag: <up>},
    {kind: tsv, path: made.tsv, tag: <BT>}]}
  dev: {kind: tsv, path: pairs.tsv, tag: <up>}
train: {max_steps: 10, batch: {tokens: 200}, threads: 1, precision: fp32}
validation: {every: 5, examples: 4, choose_by: loss}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    lines = [f"w{n % 9} w{n % 5} . w{n % 7} w{n % 3} ." for n in range(40)]
    Path("mono").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    pairs = [f"{line}\t{' '.join(reversed(line.split()))}\n" for line in lines]
    Path("pairs.tsv").write_text("".join(pairs), encoding="utf-8")
    Path("pre.yaml").write_text(PRETRAINING + MODEL, encoding="utf-8")
    Path("fine.yaml").write_text(TRAINING, encoding="utf-8")
    return tmp_path


def transduce(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["transduce", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_pretraining_then_synthesis_then_training(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transduce(monkeypatch, "check", "pre.yaml") == 0
    assert transduce(monkeypatch, "train", "pre.yaml") == 0
    made = ("synthesise", "runs/pre", "mono", "made.tsv", "--side", "source")
    assert transduce(monkeypatch, *made, "search.kind=sample") == 0
    assert Path("made.tsv").read_text("utf-8").count("\t") > 0
    assert transduce(monkeypatch, "train", "fine.yaml") == 0
    assert "parameters taken" in capsys.readouterr().err
    before, after = (Transducer.load(home / "runs" / name) for name in ("pre", "fine"))
    assert after.source.reserved == before.source.reserved
    assert set(after.source.reserved) > {"<up>", "<BT>", "<mask>", "<span:1>"}
    folder.verify(home / "runs/fine/model")
    Path("fine.yaml").write_text(TRAINING.replace("<BT>", "<other>"), encoding="utf-8")
    assert transduce(monkeypatch, "train", "fine.yaml", "--run", "runs/other") == 2
    assert "the vocabulary has no symbol <other>; name it there" in capsys.readouterr().err
    extended = ("start.vocabulary=extend", "--run", "runs/extended")
    assert transduce(monkeypatch, "train", "fine.yaml", *extended) == 0
    wider = Transducer.load(home / "runs/extended").source
    assert wider.reserved == (*before.source.reserved, "<other>")
