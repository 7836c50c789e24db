"""Weights from trusted examples: they tell noise from what is clean, and training gains by them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.recipe.weigh import weigh
from transduce.train.progress import Show
from transduce.train.track import Journal

Pairs = list[tuple[str, str]]

QUIET = Show(quiet=True)
PAIRS, TRUSTED, DEV = 1500, 100, 100
CIPHER: Final = str.maketrans("abcdefgh", "mnopqrst")
SETTINGS = """
data: {train: {kind: tsv, path: noisy.tsv}, dev: {kind: tsv, path: dev.tsv}}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 16, width: 24, dropout: 0}
  decoder: {kind: recurrent, embedding: 16, width: 24, dropout: 0}
train: {max_steps: 400, batch: {tokens: 512}, threads: 1, precision: fp32,
  optimiser: {rate: 1e-2, schedule: {kind: cosine, warmup: 20}}}
validation: {every: 400, examples: 1, average: false, choose_by: loss}
"""
TUNED = ("start={run: general}", "data.train.path=trusted.tsv", "train.max_steps=60")
WEIGHTED = "data.train={kind: tsv, path: weighed.tsv, weight: 3}"
WEIGHTINGS = {"ratio": "weighting={kind: ratio, sharpness: 3}", "best": "weighting=best"}


def pairs(seed: int, count: int) -> Pairs:
    draw = random.Random(seed)
    sources = ["".join(draw.choices("abcdefgh", k=draw.randint(3, 8))) for _ in range(count)]
    return [(source, source.translate(CIPHER)) for source in sources]


def write(path: Path, rows: Pairs) -> None:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")


def run(home: Path, name: str, *changes: str) -> float:
    """Train; return the best loss on dev, which is clean."""
    assert train(parse(SETTINGS, Experiment, "x", changes), home, home / name, QUIET) == 0
    journal = Journal(home / name / "train.jsonl").read()
    return min(float(one["scores"]["loss"]) for one in journal if one["kind"] == "validation")


@pytest.fixture(scope="module")
def noisy() -> tuple[Pairs, Pairs]:
    """Return clean pairs, and as many that have another's target."""
    clean, rest = pairs(1, PAIRS // 2), pairs(4, PAIRS // 2)
    return clean, [(source, rest[n - 1][1]) for n, (source, _) in enumerate(rest)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, noisy: tuple[Pairs, Pairs]) -> Path:
    """Train a model on everything, and tune it to what is trusted."""
    home = tmp_path_factory.mktemp("weights")
    write(home / "noisy.tsv", [*noisy[1], *noisy[0]])
    write(home / "trusted.tsv", pairs(2, TRUSTED))
    write(home / "dev.tsv", pairs(3, DEV))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRANSDUCE_CACHE", str(home / "cache"))
        run(home, "general")
        run(home, "trusted", *TUNED)
    return home


def weighed(home: Path, out: Path, how: str) -> dict[tuple[str, str], float]:
    """Weigh the noisy data; return what each pair weighs."""
    weigh((home / "general", home / "trusted"), [home / "noisy.tsv"], out, [how], (), QUIET)
    rows = [line.split("\t") for line in out.read_text("utf-8").split("\n")[:-1]]
    return {(source, target): float(weight) for source, target, weight, _ in rows}


@pytest.mark.parametrize("how", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_weights_tell_noise_from_what_is_clean(
    home: Path, tmp_path: Path, noisy: tuple[Pairs, Pairs], how: str
) -> None:
    found = weighed(home, tmp_path / "weighed.tsv", how)
    good, bad = (np.array([found.get(pair, 0.0) for pair in side]) for side in noisy)
    assert area(good, bad) > 0.9
    assert good.mean() > 2 * bad.mean()


def area(good: NDArray[np.float64], bad: NDArray[np.float64]) -> float:
    """Return how often what is good is above what is bad (the area under the ROC curve)."""
    return float((good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2)


def test_training_with_the_weights_beats_training_without(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(home / "cache"))
    weighed(home, home / "weighed.tsv", WEIGHTINGS["ratio"])
    # As many updates, from the same beginning; without weights it is what the first model did.
    without = Journal(home / "general" / "train.jsonl").read()[-1]["scores"]["loss"]
    assert run(home, "better", WEIGHTED) < 0.7 * without
