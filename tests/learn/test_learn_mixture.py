"""A mixture that follows what is behind: more is learned of what the size leaves behind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import pytest

from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.train.progress import Show
from transduce.train.track import Journal

CIPHERS: Final = {"large": str.maketrans("abcd", "mnop"), "small": str.maketrans("abcd", "opmn")}
SETTINGS = """
data:
  train:
    kind: mixture
    epoch: 200
    of: [{kind: tsv, path: large.tsv, tag: <1>}, {kind: tsv, path: small.tsv, tag: <2>}]
  dev:
    kind: mixture
    of: [{kind: tsv, path: large.dev.tsv, tag: <1>}, {kind: tsv, path: small.dev.tsv, tag: <2>}]
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 12, width: 16, dropout: 0}
  decoder: {kind: recurrent, embedding: 12, width: 16, dropout: 0}
train: {max_steps: 200, batch: {tokens: 256}, threads: 1, precision: fp32,
  optimiser: {rate: 1e-2, schedule: {kind: cosine, warmup: 20}}}
validation: {every: 20, examples: 1, average: false, choose_by: loss, patience: 0}
"""


def write(home: Path, name: str, corpus: str, seed: int, count: int) -> None:
    draw = random.Random(seed)
    sources = ["".join(draw.choices("abcd", k=draw.randint(3, 7))) for _ in range(count)]
    lines = (f"{source}\t{source.translate(CIPHERS[corpus])}\n" for source in sources)
    (home / name).write_text("".join(lines), encoding="utf-8")


def run(home: Path, name: str, *changes: str) -> tuple[list[float], list[list[int]]]:
    """Train; return the last losses of both corpora, and the turns that they had."""
    experiment = parse(SETTINGS, Experiment, "x", changes)
    assert train(experiment, home, home / name, Show(quiet=True)) == 0
    journal = Journal(home / name / "train.jsonl").read()
    found: list[dict[str, Any]] = [dict(one) for one in journal if one["kind"] == "mixture"]
    return found[-1]["losses"], [one["turns"] for one in found]


def test_what_is_behind_has_more_turns_and_a_lower_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    for seed, (corpus, count) in enumerate({"large": 1900, "small": 100}.items()):
        write(tmp_path, f"{corpus}.tsv", corpus, seed, count)
        write(tmp_path, f"{corpus}.dev.tsv", corpus, seed + 10, 60)
    # A power of as good as nothing: losses are measured, and shares stay.
    (large, small), fixed = run(tmp_path, "fixed", "data.train.follow={kind: behind, power: 1e-9}")
    assert {tuple(turns) for turns in fixed} == {(190, 10)}
    assert small > 2 * large, "with fixed shares the small one stays behind"
    (_, caught_up), turns = run(tmp_path, "behind", "data.train.follow=behind")
    assert max(own for _, own in turns) > 30
    assert caught_up < 0.75 * small
