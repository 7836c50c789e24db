"""Curricula: what is easy comes first, and in the end everything comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from transduce import folder
from transduce.blueprint import parse
from transduce.data.corpora import open_rows
from transduce.data.curriculum import (
    CurriculumBlueprint,
    GivenBlueprint,
    LengthBlueprint,
    RarityBlueprint,
)
from transduce.data.rows import Rows
from transduce.data.store import Encoding, LimitsBlueprint
from transduce.data.stream import BatchBlueprint, Position, batches, choices
from transduce.data.tables import TsvBlueprint
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.text.codec import TextBlueprint, learn_codecs
from transduce.train.progress import Show

SIZE = 150


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    home = tmp_path_factory.mktemp("curriculum")
    lines = [f"{'often ' * (n * 7 % 11 + 1)}rare{n % 50}" for n in range(SIZE)]
    table = "".join(f"{line}\t{line}\t{n % 3}\t{-n * 7 % 31}\n" for n, line in enumerate(lines))
    (home / "t").write_text(table, encoding="utf-8")
    text = TextBlueprint.model_validate({"source": {"tokens": "words"}})
    how = Encoding(learn_codecs(text, lines, lines), LimitsBlueprint())
    return open_rows(TsvBlueprint(path="t", weight=3, ease=4), home, how, home / "cache")


def epoch(rows: Rows, blueprint: BatchBlueprint, number: int) -> list[int]:
    found: list[int] = []
    for position, choice in choices(rows, blueprint, 5, Position(number, 0)):
        found += choice.rows.tolist()
        if position.epoch > number:
            return found
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("kind", CurriculumBlueprint.choices().values(), ids=str)
def test_an_epoch_takes_the_easiest_and_the_later_ones_everything(
    rows: Rows, kind: type[CurriculumBlueprint]
) -> None:
    curriculum = kind(epochs=4, start=0.2)
    setting = BatchBlueprint(tokens=60, pool=40, curriculum=curriculum)
    difficulty = np.concatenate(list(curriculum.difficulty(rows)))
    before: set[int] = set()
    for number, share in enumerate([0.2, 0.529, 0.721, 0.872, 1, 1]):
        found = epoch(rows, setting, number)
        assert len(found) == len(set(found)) == pytest.approx(share * SIZE, abs=1)
        assert before <= set(found), "what was learned stays"
        before = set(found)
        others = sorted(set(range(SIZE)) - before)
        if others:
            assert difficulty[found].max() <= difficulty[others].min()
    assert before == set(range(SIZE)), "every row comes"


def test_to_resume_is_to_seek(rows: Rows) -> None:
    setting = BatchBlueprint(tokens=60, pool=40, curriculum=LengthBlueprint(epochs=3))
    stream = choices(rows, setting, 1)
    for _ in range(60):
        position, _ = next(stream)
    assert position.epoch > 0
    again = choices(rows, setting, 1, position)
    for _ in range(20):
        (one, first), (other, second) = next(stream), next(again)
        assert one == other
        assert first.rows.tolist() == second.rows.tolist()


def test_difficulty_is_length_or_rarity(rows: Rows) -> None:
    source = rows.batch(np.arange(SIZE)).sources["source"]
    length = np.concatenate(list(LengthBlueprint().difficulty(rows)))
    assert length.tolist() == source.lengths.tolist()
    ids = torch.cat([row[:size] for row, size in zip(source.data, source.lengths, strict=True)])
    shares = torch.bincount(ids).double() / len(ids)
    rarity = np.concatenate(list(RarityBlueprint().difficulty(rows)))
    for place in (0, 9, 149):
        own = source.data[place, : source.lengths[place]]
        assert rarity[place] == pytest.approx(float(-shares[own].log().sum()), rel=1e-5)


def test_what_is_given_comes_in_its_order(rows: Rows) -> None:
    difficulty = np.concatenate(list(GivenBlueprint().difficulty(rows)))
    assert difficulty.tolist() == [-(-n * 7 % 31) for n in range(SIZE)]
    first = epoch(rows, BatchBlueprint(curriculum=GivenBlueprint(start=0.2)), 0)
    assert max(difficulty[first]) <= min(np.delete(difficulty, first))
    assert len(first) == SIZE // 5


def test_weights_come_with_their_rows(rows: Rows) -> None:
    for _, (_, batch) in zip(range(5), batches(rows, BatchBlueprint(tokens=60), 1), strict=False):
        assert batch.weights is not None
        assert batch.weights[:, 0].tolist() == (batch.index % 3).tolist()
        moved = batch.to(torch.device("meta")).weights
        assert moved is not None
        assert moved.is_meta


SETTINGS = """
data:
  train: {kind: tsv, path: t, weight: 3}
  dev: {kind: tsv, path: t}
text: {source: {tokens: words}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 8}
  decoder: {kind: recurrent, embedding: 8, width: 8}
train: {max_steps: 12, batch: {tokens: 60, curriculum: {kind: rarity, epochs: 3}}, threads: 1,
  precision: fp32, optimiser: {schedule: {kind: inverse_sqrt}}}
validation: {every: 6, examples: 4, choose_by: loss}
"""


def test_training_with_weights_and_a_curriculum_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))

    def run(name: str, *changes: str, weight: str = "0.5") -> str:
        table = "".join(f"a{n} {'b ' * (n % 4)}\tc{n}\t{weight}\n" for n in range(60))
        (tmp_path / "t").write_text(table, encoding="utf-8")
        experiment = parse(SETTINGS, Experiment, "x", changes)
        assert train(experiment, tmp_path, tmp_path / name, Show(quiet=True)) == 0
        saved = tmp_path / name / "checkpoints"
        return folder.digest(max(saved.glob("step-*")) / "weights.safetensors")

    whole = run("whole")
    run("parts", "train.max_steps=6")
    assert run("parts") == whole
    ones = run("ones", weight="1")
    assert ones != whole
    assert run("plain", "data.train.weight=null", weight="1") == ones


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.dev.weight=3", "count in training alone"),
        ("data.dev.ease=3", "of training alone"),
        ("data.train.ease=3", "train.batch.curriculum: rarity does not ask how easy"),
        ("train.batch.curriculum=given", "name it in data.train.ease"),
        ("train.objective=coverage", "makes no use of the weights"),
        ("data.train={kind: mixture, of: [{kind: tsv, path: t}, {kind: tsv, path: t}]}", "turn"),
    ],
)
def test_what_makes_no_sense_is_refused(change: str, message: str) -> None:
    with pytest.raises(Problem, match=message):
        parse(SETTINGS, Experiment, "x", [change])
