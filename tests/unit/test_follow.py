"""Mixtures that follow what is measured: by how much, in which order, and going on."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from together import Together, command

from transduce import folder
from transduce.blueprint import parse
from transduce.data.corpora import open_rows
from transduce.data.follow import BehindBlueprint, FollowBlueprint, Measured, ProgressBlueprint
from transduce.data.mixture import Mixed, MixtureBlueprint
from transduce.data.store import Encoding, LimitsBlueprint
from transduce.data.stream import BatchBlueprint, Position, choices
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.follow import Run as FollowingRun
from transduce.recipe.follow import follow
from transduce.recipe.validate import Validation
from transduce.text.codec import TextBlueprint, learn_codecs
from transduce.train.loop import TrainState
from transduce.train.parallel import Alone
from transduce.train.progress import Show
from transduce.train.track import Journal

SIZES = (60, 30, 10)
BOUNDS = np.cumsum([0, *SIZES])
BATCH = BatchBlueprint(tokens=40, pool=50)


@pytest.mark.parametrize("kind", FollowBlueprint.choices().values(), ids=str)
def test_factors_are_numbers_whatever_was_measured(kind: type[FollowBlueprint]) -> None:
    for losses in ([[1.0, 2.0]], [[0.0, 0.0]], [[1.0, 2.0]] * 2, [[3.0, 0.0], [1.0, 0.0]]):
        found = kind().factors(np.array(losses))
        assert found.shape == (2,)
        assert np.isfinite(found).all()
        assert found.max() > 0


def test_more_of_what_is_behind() -> None:
    losses = np.array([[9.0, 9.0, 9.0], [1.0, 2.0, 4.0]])
    assert BehindBlueprint().factors(losses).tolist() == [1, 4, 16]
    behind = BehindBlueprint(goals=(2.0, 2.0, 1.0), power=1)
    assert behind.factors(losses).tolist() == [1, 1, 4]


def test_more_of_what_changes() -> None:
    progress = ProgressBlueprint(memory=0.5, floor=0.25)
    assert progress.factors(np.array([[5.0, 4.0]])).tolist() == [1, 1]
    # The first gets better by 2, the second is forgotten by as much, the third stands still.
    losses = np.array([[5.0, 4.0, 3.0], [3.0, 6.0, 3.0]])
    assert progress.factors(losses).tolist() == pytest.approx([1.375, 1.375, 0.25])
    later = progress.factors(np.array([[5.0, 4.0], [3.0, 4.0], [2.0, 3.0]]))
    assert later.tolist() == pytest.approx([0.25 + 0.75 * 4 / 3, 0.25 + 0.75 * 2 / 3])
    swings = progress.factors(np.array([[1.0, 4.0], [2.0, 3.0], [1.0, 2.0]]))
    assert swings[1] > swings[0], "what goes to and fro is no progress"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("follow")
    for number, size in enumerate(SIZES):
        lines = (f"{number} {'x ' * (n % 4)}{n}\t{number} {n}\n" for n in range(size))
        (home / f"{number}.tsv").write_text("".join(lines), encoding="utf-8")
    return home


def mixed(home: Path, **facts: Any) -> Mixed:
    of = [{"kind": "tsv", "path": f"{number}.tsv"} for number in range(len(SIZES))]
    corpus = MixtureBlueprint.model_validate({"of": of, "follow": "behind", **facts})
    text = TextBlueprint.model_validate({"source": {"tokens": "words"}})
    codecs = learn_codecs(text, corpus.texts(home, "source"), corpus.texts(home, "target"))
    rows = open_rows(corpus, home, Encoding(codecs, LimitsBlueprint()), home / "cache")
    assert isinstance(rows, Mixed)
    return rows


@pytest.fixture(scope="module")
def rows(home: Path) -> Mixed:
    return mixed(home)


def epoch(rows: Mixed, number: int, seed: int = 3) -> list[int]:
    found: list[int] = []
    for position, choice in choices(rows, BATCH, seed, Position(number, 0)):
        found += choice.rows.tolist()
        if position.epoch > number:
            return found
    raise AssertionError("the stream ended")


def owners(rows: list[int]) -> list[int]:
    counts = Counter(np.searchsorted(BOUNDS, rows, side="right") - 1)
    return [counts[number] for number in range(len(SIZES))]


def test_shares_follow_what_was_measured_before_an_epoch(home: Path, rows: Mixed) -> None:
    course = [Measured(1, (1.0, 1.0, 3.0)), Measured(1, (2.0, 1.0, 1.0)), Measured(4, (1, 1, 1))]
    following = rows.following(course)
    assert [owners(epoch(following, number)) for number in (0, 1, 3, 4)] == [
        [60, 30, 10],
        [86, 11, 4],
        [86, 11, 4],
        [60, 30, 10],
    ]
    assert owners(epoch(rows, 1)) == [60, 30, 10], "nothing is measured yet"
    plain = mixed(home, follow=None)
    for number in (0, 5):
        assert epoch(plain.following(course), number) == epoch(plain, number)


@settings(max_examples=10, deadline=None)
@given(
    course=st.lists(
        st.builds(Measured, st.integers(0, 3), st.tuples(*[st.floats(0.125, 9)] * len(SIZES))),
        max_size=3,
    ),
    seed=st.integers(0, 2**40),
)
def test_no_row_comes_twice_before_all_have_come(
    rows: Mixed, course: list[Measured], seed: int
) -> None:
    following = rows.following(sorted(course, key=lambda one: one.epoch))
    seen = np.zeros(len(rows), np.int64)
    for number in range(5):
        seen += np.bincount(epoch(following, number, seed), minlength=len(rows))
        for first, last in pairwise(BOUNDS):
            assert np.ptp(seen[first:last]) <= 1


def test_an_order_that_grew_is_the_order_that_is_sought(rows: Mixed) -> None:
    course: list[Measured] = []
    grown, places = [], []
    for number, (position, choice) in enumerate(choices(rows.following(course), BATCH, 1)):
        grown.append(choice.rows.tolist())
        places.append(position)
        if number % 7 == 6:  # a validation, somewhere in an epoch or at its end
            losses = tuple(1.0 + (number * part) % 5 for part in (1, 2, 3))
            course.append(Measured(position.epoch + (position.batch > 0), losses))
        if position.epoch == 4:
            break
    for start in (3, 20, 41):
        known = [one for one in course if one.epoch <= places[start].epoch + 1]
        again = choices(rows.following(course), BATCH, 1, places[start])
        assert known
        assert [next(again)[1].rows.tolist() for _ in grown[start + 1 :]] == grown[start + 1 :]


SETTINGS = """
data:
  train:
    kind: mixture
    epoch: 30
    follow: {kind: behind, power: 50}
    of: [{kind: tsv, path: 0.tsv}, {kind: tsv, path: 1.tsv}, {kind: tsv, path: 2.tsv}]
  dev:
    kind: mixture
    of: [{kind: tsv, path: 2.tsv}, {kind: tsv, path: 0.tsv}, {kind: tsv, path: 1.tsv}]
text: {source: {tokens: words}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 8, dropout: 0}
  decoder: {kind: recurrent, embedding: 8, width: 8, dropout: 0}
train: {max_steps: 16, batch: {tokens: 60}, threads: 1, precision: fp32,
  optimiser: {rate: 1e-2, schedule: {kind: inverse_sqrt}}}
validation: {every: 4, examples: 2, choose_by: loss, patience: 0}
"""


def run(home: Path, name: str, *changes: str) -> Path:
    experiment = parse(SETTINGS, Experiment, "x", changes)
    assert train(experiment, home, home / name, Show(quiet=True)) == 0
    return home / name


def weights(run: Path) -> str:
    return folder.digest(run / "checkpoints/step-0000016/weights.safetensors")


def mixtures(run: Path) -> list[dict[str, Any]]:
    records = Journal(run / "train.jsonl").read()
    return [dict(record) for record in records if record["kind"] == "mixture"]


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRANSDUCE_CACHE", str(home / "cache"))
        return run(home, "whole")


@pytest.mark.parametrize("cut", [8, 10])
def test_a_run_that_was_cut_goes_on_bit_for_bit(
    home: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(home / "cache"))
    run(home, f"cut{cut}", f"train.max_steps={cut}")
    again = run(home, f"cut{cut}")
    assert weights(again) == weights(whole)
    assert mixtures(again) == mixtures(whole)


def test_what_was_measured_decides_the_turns(home: Path, whole: Path) -> None:
    found = mixtures(whole)
    assert [record["step"] for record in found] == [4, 8, 12, 16]
    sizes = np.array(SIZES, dtype=np.float64)
    for record in found:
        shares = sizes * BehindBlueprint(power=50).factors(np.array([record["losses"]]))
        turns = np.maximum(1, np.rint(shares / shares.sum() * 30))
        assert record["turns"] == turns.tolist()
    assert len({tuple(record["turns"]) for record in found} | {(18, 9, 3)}) > 2
    validations = [r for r in Journal(whole / "train.jsonl").read() if r["kind"] == "validation"]
    low, high = min(found[-1]["losses"]), max(found[-1]["losses"])
    assert low < validations[-1]["scores"]["loss"] < high


class Told(Alone):
    """A process among others: the first notes what it tells, the others are told that."""

    def __init__(self, said: list[float], first: bool) -> None:
        super().__init__()
        self.said, self.rank = said, 0 if first else 1

    def tell(self, value: float) -> float:
        if not self.first:
            return self.said.pop(0)
        self.said.append(value)
        return value


def test_all_processes_follow_what_the_first_has_measured(rows: Mixed) -> None:
    said: list[float] = []
    found = Validation({}, 0.0, [], (3.0, 1.0, 2.0))
    orders = []
    for first in (True, False):
        state = cast(TrainState, SimpleNamespace(step=8, position=Position(2, 5), course=[]))
        run = SimpleNamespace(
            experiment=parse(SETTINGS, Experiment, "x"),
            prepared=SimpleNamespace(train=rows),
            state=state,
            group=Told(said, first),
            show=Show(quiet=True),
        )
        record = follow(cast(FollowingRun, run), found if first else None)
        assert record is not None
        assert state.course == [Measured(3, (3.0, 1.0, 2.0))]
        assert record["turns"] == rows.following(state.course).shares(3).tolist()
        orders.append(epoch(rows.following(state.course), 3))
        state.step = 9  # no regular validation
        assert follow(cast(FollowingRun, run), found if first else None) is None
        assert len(state.course) == 1
    assert orders[0] == orders[1]
    assert not said


def test_several_processes_read_what_one_reads(home: Path, whole: Path) -> None:
    (home / "exp.yaml").write_text(SETTINGS, encoding="utf-8")

    def together(*changes: str) -> list[dict[str, Any]]:
        arguments = ["train", "exp.yaml", "--run", "two", "train.log_every=1", *changes]
        training = Together(2, home / "two.log", command, home, arguments)
        assert training.codes() == [0, 0], training.said
        return Journal(home / "two" / "train.jsonl").read()

    together("train.max_steps=8")
    records = together()
    for ours, theirs in zip(mixtures(home / "two"), mixtures(whole), strict=True):
        assert ours["turns"] == theirs["turns"]
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
    assert records[-1]["scores"]["loss"] == pytest.approx(
        Journal(whole / "train.jsonl").read()[-1]["scores"]["loss"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.dev={kind: tsv, path: 0.tsv}", "make dev a mixture of 3"),
        ("data.dev={kind: mixture, of: [{kind: tsv, path: a}, {kind: tsv, path: b}]}", "of 3"),
        ("data.dev.follow=progress", "training alone"),
        ("data.train.follow={kind: behind, goals: [1, 2]}", "2 for 3 corpora"),
    ],
)
def test_what_makes_no_sense_is_refused(change: str, message: str) -> None:
    with pytest.raises(Problem, match=message):
        parse(SETTINGS, Experiment, "x", [change])
