"""Models learn to copy words that they have never seen, from the files of a run to its answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import pytest

from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.train.progress import Show
from transduce.transducer import Transducer

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
PARTS: Final = {
    "recurrent": "{kind: recurrent, embedding: 32, width: 64, dropout: 0}",
    "transformer": "{kind: transformer, width: 64, layers: 1, heads: 4, inner: 128, dropout: 0}",
}
SETTINGS: Final = """
data:
  train: {kind: tsv, path: train.tsv}
  dev: {kind: tsv, path: dev.tsv}
text: {source: {tokens: {kind: words, min_count: 5}}, joint: true}
model: {encoder: PART, decoder: PART, head: {kind: pointer_generator, new_words: 4}}
train:
  max_steps: 300
  batch: {tokens: 1000}
  objective: {kind: cross_entropy, smoothing: 0}
  optimiser: {rate: 5e-3}
  precision: fp32
  threads: 1
validation: {every: 300, examples: 10}
metrics: [exact]
search: greedy
"""


def examples(count: int, seed: int) -> list[tuple[str, str]]:
    """Draw sentences about two people whose names nobody else bears."""
    draw = random.Random(seed)
    drawn = []
    for _ in range(count):
        one, two = ("".join(draw.choices(LETTERS, k=6)) for _ in range(2))
        polite = draw.choice(["please", "hey"])
        wish = draw.choice([f"call {one} not {two}", f"do not call {two} but {one}"])
        drawn.append((f"{polite} {wish}", f"{one} is called instead of {two}"))
    return drawn


@pytest.mark.parametrize("part", PARTS)
def test_names_never_seen_are_copied(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    for name, count, seed in (("train", 1000, 1), ("dev", 50, 2)):
        lines = "".join(f"{source}\t{target}\n" for source, target in examples(count, seed))
        (tmp_path / f"{name}.tsv").write_bytes(lines.encode())
    experiment = parse(SETTINGS.replace("PART", PARTS[part]), Experiment, "copying.yaml")
    assert train(experiment, tmp_path, tmp_path / "run", Show(quiet=True)) == 0
    model = Transducer.load(tmp_path / "run", device="cpu")
    asked = examples(200, 3)
    answers = model([source for source, _ in asked])
    right = [str(answer) == target for answer, (_, target) in zip(answers, asked, strict=True)]
    assert sum(right) / len(right) >= 0.98
    forced = model.force(*zip(*asked, strict=True))
    for answer, tokens, good in zip(answers, forced, right, strict=True):
        if good:
            assert [t.piece for t in tokens] == [t.piece for t in answer.tokens]
