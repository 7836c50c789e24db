"""Corpora of text in one language: what noise makes of them, and that a run goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transduce import folder
from transduce.blueprint import parse
from transduce.data.corpora import open_rows
from transduce.data.denoise import DenoiseBlueprint
from transduce.data.rows import Rows
from transduce.data.store import Encoding, LimitsBlueprint
from transduce.data.stream import BatchBlueprint, Position, batches
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.use import predict
from transduce.text.codec import TextBlueprint, TextCodec, learn_codecs
from transduce.text.vocabulary import BOS, EOS
from transduce.train.progress import Show

LINES = [f"a{n} sees b{n} . then c{n} hears d{n % 7} and sleeps ." for n in range(60)]


def learned(corpus: DenoiseBlueprint, tokens: Any = "words") -> dict[str, TextCodec]:
    text = TextBlueprint.model_validate({"source": {"tokens": tokens}, "joint": True})
    return learn_codecs(text, LINES, [], corpus.reserved)


def rows(home: Path, sampled: Any = None, **settings: Any) -> tuple[Rows, TextCodec]:
    (home / "mono").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    corpus = DenoiseBlueprint.model_validate({"path": "mono", **settings})
    codecs = learned(corpus, sampled or "words")
    how = Encoding(codecs, LimitsBlueprint(), sampled=sampled is not None)
    return open_rows(corpus, home, how, home / "cache"), codecs["source"]


NOISES: list[list[Any]] = [["permute", "infill"], ["delete", "mask"], ["spans"], ["mass"]]


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_a_batch_is_noise_and_text(tmp_path: Path, noise: list[Any]) -> None:
    found, codec = rows(tmp_path, noise=noise, tag="<de>")
    (tag,) = codec.encode("<de>")
    seen = []
    for _, batch in zip(range(12), batches(found, BatchBlueprint(tokens=200), 1), strict=False):
        for key, one in enumerate(batch[1].index.tolist()):
            source, target = batch[1].sources["source"], batch[1].target
            assert target is not None
            read = source.data[key, : source.lengths[key]].tolist()
            said = target.data[key, : target.lengths[key]].tolist()
            assert (read[0], read[-1], said[0], said[-1]) == (tag, EOS, BOS, EOS)
            assert read.count(tag) == 1, "noise leaves the tag alone"
            if noise not in (["spans"], ["mass"]):
                assert codec.decode(said) == LINES[one]
            assert read[1:] != said[1:] or "permute" not in noise
            most = found.lengths(np.array([one]))[:, 0]
            assert (len(read), len(said) - 1) <= tuple(most)
            seen.append((one, tuple(read)))
    assert len({text for _, text in seen}) > len({one for one, _ in seen})


def test_noise_is_drawn_anew_in_each_epoch_and_never_otherwise(tmp_path: Path) -> None:
    found, _ = rows(tmp_path)
    blueprint = BatchBlueprint(tokens=100)

    def text(start: Position) -> list[list[int]]:
        return [
            batch.sources["source"].data.tolist()
            for (_, batch), _ in zip(batches(found, blueprint, 7, start), range(3), strict=False)
        ]

    assert text(Position(0, 2)) == text(Position(0, 2)) != text(Position(1, 2))
    again, _ = rows(tmp_path)
    stream = batches(again, blueprint, 7)
    for _ in range(2):
        next(stream)
    here = [next(stream)[1].sources["source"].data.tolist() for _ in range(3)]
    assert here == text(Position(0, 2)), "to seek is to skip"


def test_another_noise_is_no_other_encoding(tmp_path: Path) -> None:
    for noise in (["mask"], ["infill"], ["mass"]):
        rows(tmp_path, noise=noise)
    stores = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(stores) == 1


def test_an_example_shows_the_noise(tmp_path: Path) -> None:
    found, _ = rows(tmp_path, noise=["mass"])
    example = found.example(3)
    masks = example.sources["source"].split().count("<mask>")
    assert masks == len(example.references[0].split()) == round(0.5 * 11)
    found, _ = rows(tmp_path, noise=["infill"])
    assert found.example(3).references == (LINES[3],)
    assert "<mask>" in found.example(3).sources["source"]


def test_noise_goes_with_sampled_segmentations(tmp_path: Path) -> None:
    tokens = {"kind": "sentencepiece", "size": 300, "sampling": {"variants": 3}}
    found, codec = rows(tmp_path, tokens, noise=["spans"])
    _, batch = next(batches(found, BatchBlueprint(), 1))
    assert batch.target is not None
    read = codec.decode(batch.sources["source"].data[0].tolist())
    assert "<span:1>" in read
    assert "<span:1>" in codec.decode(batch.target.data[0].tolist())


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="let it stand alone"):
        DenoiseBlueprint.model_validate({"path": "x", "noise": ["mask", "spans"]})
    with pytest.raises(ValueError, match="its own reference"):
        DenoiseBlueprint(path="x", group=True)
    with pytest.raises(Problem, match=r"set text\.joint: true"):
        parse(SETTINGS, Experiment, "x", ["text.joint=false"])
    with pytest.raises(Problem, match="no test set"):
        parse(SETTINGS, Experiment, "x", ["data.test={kind: denoise, path: mono}"])
    judged = "train.objective={kind: in_turn, updates: 9, then: minimum_risk}"
    assert parse(SETTINGS, Experiment, "x", [judged]).train.objective.judges
    for noised in ("{kind: denoise, path: m, noise: [mass]}", MIXED):
        with pytest.raises(Problem, match="draws the target anew in every epoch"):
            parse(SETTINGS, Experiment, "x", [judged, f"data.train={noised}"])


MIXED = (
    "{kind: mixture, of: [{kind: denoise, path: m, noise: [spans]}, {kind: tsv, path: pairs.tsv}]}"
)
SETTINGS = """
data:
  train: {kind: denoise, path: mono, noise: [permute, infill]}
  dev: {kind: denoise, path: mono, noise: [mask]}
text: {source: {tokens: words}, joint: true}
model:
  encoder: {kind: recurrent, embedding: 8, width: 8}
  decoder: {kind: recurrent, embedding: 8, width: 8}
train: {max_steps: 8, batch: {tokens: 200}, threads: 1, precision: fp32,
  optimiser: {schedule: {kind: inverse_sqrt}}}
validation: {every: 4, examples: 4, choose_by: loss}
"""


def test_pretraining_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mono").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")

    def run(name: str, *changes: str) -> Path:
        experiment = parse(SETTINGS, Experiment, "x", changes)
        assert train(experiment, tmp_path, tmp_path / name, Show(quiet=True)) == 0
        return tmp_path / name / "checkpoints/step-0000008/weights.safetensors"

    whole = run("whole")
    run("parts", "train.max_steps=4")
    assert folder.digest(run("parts")) == folder.digest(whole)
    (answer,) = predict(tmp_path / "whole", ["a1 <mask> b1"], show=Show(quiet=True))
    assert isinstance(answer, str)
