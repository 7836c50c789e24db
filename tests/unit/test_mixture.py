"""Mixtures: whose turn it is, and that nobody is forgotten."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce import folder
from transduce.blueprint import parse
from transduce.data.corpora import open_rows
from transduce.data.lines import Skipped
from transduce.data.mixture import Mixed, MixtureBlueprint
from transduce.data.store import Encoding, LimitsBlueprint
from transduce.data.stream import BatchBlueprint, Position, batches, choices
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.text.codec import TextBlueprint, learn_codecs
from transduce.train.progress import Show

SIZES = {"large": 200, "middle": 40, "small": 7}


def write(home: Path) -> None:
    for name, size in SIZES.items():
        rows = [f"{name}{n} {'x ' * (n % 5)}y\t{name}{n} z\n" for n in range(size)]
        (home / name).write_text("".join(rows), encoding="utf-8")
    (home / "mono").write_text("".join(f"mono{n} a b c\n" for n in range(30)), encoding="utf-8")


def blueprint(**settings: Any) -> MixtureBlueprint:
    of = [{"kind": "tsv", "path": name, "tag": f"<{name}>"} for name in SIZES]
    return MixtureBlueprint.model_validate({"of": of, **settings})


def mixed(home: Path, **settings: Any) -> Mixed:
    write(home)
    corpus = blueprint(**settings)
    text = TextBlueprint.model_validate({"source": {"tokens": "words"}, "joint": True})
    sources, targets = corpus.texts(home, "source"), corpus.texts(home, "target")
    how = Encoding(learn_codecs(text, sources, targets, corpus.reserved), LimitsBlueprint())
    found = open_rows(corpus, home, how, home / "cache")
    assert isinstance(found, Mixed)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mixture")


def epoch(rows: Mixed, number: int, seed: int = 3) -> list[int]:
    found: list[int] = []
    setting = BatchBlueprint(tokens=100, pool=100)
    for position, choice in choices(rows, setting, seed, Position(number, 0)):
        found += choice.rows.tolist()
        if position.epoch > number:
            return found
    raise AssertionError("the stream ended")


def owners(rows: list[int]) -> Counter[str]:
    names = [name for name, size in SIZES.items() for _ in range(size)]
    return Counter(names[row] for row in rows)


@pytest.mark.parametrize("number", [0, 5])
def test_by_itself_an_epoch_is_every_row_once(home: Path, number: int) -> None:
    assert sorted(epoch(mixed(home), number)) == list(range(247))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0, 1e9])
def test_shares_are_sizes_to_the_power_of_one_over_temperature(
    home: Path, temperature: float
) -> None:
    rows = mixed(home, temperature=temperature, epoch=1000)
    powers = {name: size ** (1 / temperature) for name, size in SIZES.items()}
    found = owners(epoch(rows, 2))
    for name, power in powers.items():
        assert found[name] == round(1000 * power / sum(powers.values()))


@settings(max_examples=20, deadline=None)
@given(temperature=st.floats(1, 50), size=st.integers(3, 600), seed=st.integers(0, 2**40))
def test_no_row_comes_twice_before_all_have_come(
    home: Path, temperature: float, size: int, seed: int
) -> None:
    rows = mixed(home, temperature=temperature, epoch=size)
    seen = np.zeros(len(rows), np.int64)
    bounds = np.cumsum([0, *SIZES.values()])
    for number in range(4):
        seen += np.bincount(epoch(rows, number, seed), minlength=len(rows))
        for first, last in pairwise(bounds):
            assert np.ptp(seen[first:last]) <= 1
    assert all(seen[first:last].any() for first, last in pairwise(bounds))


def test_to_seek_is_to_skip_and_orders_differ(home: Path) -> None:
    rows = mixed(home, temperature=5)
    setting = BatchBlueprint(tokens=100, pool=100)
    whole = [
        choice.rows.tolist()
        for _, (_, choice) in zip(range(30), choices(rows, setting, 1), strict=False)
    ]
    part = choices(rows, setting, 1, Position(0, 10))
    assert [next(part)[1].rows.tolist() for _ in range(20)] == whole[10:]
    assert epoch(rows, 0) != epoch(rows, 1)
    assert epoch(rows, 0, seed=1) != epoch(rows, 0, seed=2)


def test_a_batch_holds_rows_of_all_corpora(home: Path) -> None:
    rows = mixed(home)
    codec = rows.parts[0]
    wanted = np.array([230, 3, 245, 210, 3])
    batch = rows.batch(wanted)
    assert batch.index.tolist() == wanted.tolist()
    lengths = [batch.sources["source"].lengths.tolist(), batch.inputs.lengths.tolist()]
    assert rows.lengths(wanted).tolist() == lengths
    for place, row in enumerate(wanted.tolist()):
        one = rows.batch(np.array([row]))
        source = batch.sources["source"]
        assert (
            source.data[place, : source.lengths[place]].tolist()
            == one.sources["source"].data[0].tolist()
        )
    assert codec.examples == 200
    assert rows.example(241).sources["source"].startswith("<small> small1 ")
    assert rows.starts().tolist() == list(range(247))
    assert rows.counts["source"].texts == 247


def test_reading_a_mixture_reads_all(home: Path) -> None:
    write(home)
    examples = list(blueprint().read(home, Skipped()))
    assert len(examples) == 247
    assert blueprint().files == tuple(SIZES)
    assert blueprint().reserved == ("<large>", "<middle>", "<small>")


def test_what_is_left_out_is_counted_together(home: Path) -> None:
    write(home)
    (home / "small").write_text("a\tb\n\tb\n", encoding="utf-8")
    (home / "middle").write_text("\tb\nc\td\n\te\n", encoding="utf-8")
    of = [{"kind": "tsv", "path": name, "on_bad_line": "skip"} for name in ("small", "middle")]
    skipped = Skipped()
    corpus = MixtureBlueprint.model_validate({"of": of})
    list(corpus.read(home, skipped))
    text = TextBlueprint.model_validate({"source": {"tokens": "words"}})
    codecs = learn_codecs(text, ["a"], ["b"])
    rows = open_rows(corpus, home, Encoding(codecs, LimitsBlueprint()), home / "cache")
    assert rows.skipped == skipped
    assert skipped.counts == {"empty source": 3}


def test_what_would_be_ignored_is_refused() -> None:
    for wrong in ({"tag": "<x>"}, {"group": True}, {"temperature": 0.5}):
        with pytest.raises(ValueError, match=r"itself|greater"):
            blueprint(**wrong)
    with pytest.raises(ValueError, match="name its corpora here"):
        MixtureBlueprint(of=(blueprint(), blueprint()))


SETTINGS = """
data:
  train:
    kind: mixture
    temperature: 3
    of:
    - {kind: tsv, path: large, tag: <2z>}
    - {kind: tsv, path: small, tag: <BT>}
    - {kind: denoise, path: mono, noise: [mass], tag: <fill>}
  dev: {kind: mixture, of: [{kind: tsv, path: small, tag: <2z>}, {kind: denoise, path: mono}]}
  test: {kind: tsv, path: middle, tag: <2z>}
text: {source: {tokens: words}, joint: true}
model:
  encoder: {kind: recurrent, embedding: 8, width: 8}
  decoder: {kind: recurrent, embedding: 8, width: 8}
train: {max_steps: 8, batch: {tokens: 200}, threads: 1, precision: fp32,
  optimiser: {schedule: {kind: inverse_sqrt}}}
validation: {every: 4, examples: 4, choose_by: loss}
"""


def test_training_on_a_mixture_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    write(tmp_path)

    def run(name: str, *changes: str) -> Path:
        experiment = parse(SETTINGS, Experiment, "x", changes)
        assert train(experiment, tmp_path, tmp_path / name, Show(quiet=True)) == 0
        return tmp_path / name / "checkpoints/step-0000008/weights.safetensors"

    whole = run("whole")
    run("parts", "train.max_steps=4")
    assert folder.digest(run("parts")) == folder.digest(whole)


def test_batches_of_a_mixture_have_noise_where_it_belongs(tmp_path: Path) -> None:
    write(tmp_path)
    corpus = parse(SETTINGS, Experiment, "x").data.train
    text = TextBlueprint.model_validate({"source": {"tokens": "words"}, "joint": True})
    sources, targets = corpus.texts(tmp_path, "source"), corpus.texts(tmp_path, "target")
    codecs = learn_codecs(text, sources, targets, corpus.reserved)
    rows = open_rows(corpus, tmp_path, Encoding(codecs, LimitsBlueprint()), tmp_path / "cache")
    codec, (mask,) = codecs["source"], codecs["source"].encode("<mask>")
    seen = Counter[str]()
    for _, (_, batch) in zip(range(15), batches(rows, BatchBlueprint(tokens=100), 1), strict=False):
        for ids in batch.sources["source"].data.tolist():
            tag = codec.decode(ids).split()[0]
            seen[tag] += 1
            assert (mask in ids) == (tag == "<fill>")
    assert set(seen) == {"<2z>", "<BT>", "<fill>"}
