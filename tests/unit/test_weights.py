"""Weights of words: read, brought to symbols, kept with their rows, and learned by."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import test_read
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce import folder
from transduce.blueprint import parse
from transduce.data.corpora import open_rows
from transduce.data.lines import Skipped
from transduce.data.mixture import MixtureBlueprint
from transduce.data.read import CorpusBlueprint
from transduce.data.rows import Rows
from transduce.data.store import Encoding, LimitsBlueprint
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.text.codec import CodecBlueprint, TextBlueprint, TextCodec, learn_codecs
from transduce.train.progress import Show

TABLE = "a b\tab c\t2 0.5\nb a\tc\t3\na\tc ab b\t1 0 4 7\n"
WEIGHTED: dict[str, Any] = {"kind": "tsv", "path": "t", "weight": 3}
TSV: Final = test_read.corpus(WEIGHTED)


def rows(home: Path, corpus: CorpusBlueprint, target: dict[str, Any], table: str = TABLE) -> Rows:
    (home / "t").write_text(table, encoding="utf-8")
    text = TextBlueprint.model_validate({"source": {"tokens": "words"}, "target": target})
    known = re.split("[\t\n]", table)
    codecs = learn_codecs(text, known, known)
    how = Encoding(codecs, LimitsBlueprint(), sampled=True)
    return open_rows(corpus, home, how, home / "cache")


def of_labels(found: Rows, which: list[int]) -> list[list[float]]:
    batch = found.batch(np.array(which))
    weights = batch.label_weights
    if weights is None:
        weights = torch.ones(batch.labels.data.shape)
    pairs = zip(weights.tolist(), batch.labels.lengths.tolist(), strict=True)
    return [row[:size] for row, size in pairs]


def test_a_symbol_counts_as_its_word_and_one_number_for_all(tmp_path: Path) -> None:
    found = rows(tmp_path, TSV, {"tokens": "characters"})
    first, second, third = [2, 2, 0.5, 0.5, 1], [3, 3], [1, 0, 0, 0, 4, 4, 7]
    assert of_labels(found, [0, 1, 2]) == [first, second, third]
    assert of_labels(found, [1, 0]) == [second, first]
    batch = found.batch(np.array([2, 1, 0]))
    taken = batch.take(torch.tensor([1, 2]))
    assert taken.weights is not None
    assert taken.weights.shape == taken.labels.data.shape
    alone = found.batch(np.array([1]))
    assert alone.weights is not None
    assert alone.weights.tolist() == [[3]]


def test_every_variant_of_a_text_has_its_own(tmp_path: Path) -> None:
    drawn = {"variants": 5, "alpha": 0.5}
    pieces = {"kind": "sentencepiece", "size": 290, "sampling": drawn}
    target = {"tokens": pieces}
    table = "".join(f"x\tabcab bacab cab{n % 3}\t5 6 7 8\n" for n in range(30))
    found = rows(tmp_path, TSV, target, table)
    sizes = set()
    for pick in range(5):
        batch = found.batch(np.arange(3), {"target": np.full(3, pick)})
        assert batch.label_weights is not None
        for size, row in zip(batch.labels.lengths.tolist(), batch.label_weights, strict=True):
            sizes.add(size)
            assert sorted(set(row[:size].tolist())) == [5, 6, 7, 8]
            assert row[:size].diff().min() >= 0
    assert len(sizes) > 1, "variants have different lengths"


@given(st.permutations(range(6)), st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_a_mixture_keeps_them_with_their_rows(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], size: int
) -> None:
    home = tmp_path_factory.getbasetemp() / "mixture"
    home.mkdir(exist_ok=True)
    (home / "plain").write_text("a\tc c c c c c c c\nb\tab\nb\ta b\n", encoding="utf-8")
    of = [WEIGHTED, {"kind": "tsv", "path": "plain"}]
    found = rows(home, MixtureBlueprint.model_validate({"of": of}), {"tokens": "words"})
    whole = [[2, 0.5, 1], [3, 3], [1, 0, 4, 7], [1] * 9, [1] * 2, [1] * 3]
    assert of_labels(found, order[:size]) == [whole[row] for row in order[:size]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\tb c\t1 2 3 4", "there are 4 weights and 2 words in the target; write one for each"),
        ("a\tb c d\t1 2", "there are 2 weights and 3 words in the target"),
        ("a\tb c\t1 -2", "the weight '1 -2' is no number from 0 on"),
        ("a\tb c\t1 nan", "the weight '1 nan' is no number from 0 on"),
    ],
)
def test_what_is_no_weight_of_words_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        rows(tmp_path, TSV, {"tokens": "words"}, f"{line}\n")
    assert caught.value.where == f"{tmp_path}/t:1"


def test_words_of_several_targets_have_no_weights(tmp_path: Path) -> None:
    corpus = test_read.corpus(WEIGHTED | {"target": [2, 4]})
    with pytest.raises(Problem, match="2 weights are of the words of one target, and there are 2"):
        rows(tmp_path, corpus, {"tokens": "words"}, "a\tb c\t1 2\tc b\n")


def test_words_that_symbols_do_not_show_are_refused(tmp_path: Path) -> None:
    table = "a\tbcd\t1\n"
    rows(tmp_path, TSV, {"tokens": "characters"}, table)
    codec = TextCodec.learn(CodecBlueprint.model_validate({"tokens": "characters"}), ["abcd"])
    how = Encoding({"source": codec, "target": codec}, LimitsBlueprint())
    (tmp_path / "t").write_text(f"{table}a\tb cd\t1 2\n", encoding="utf-8")
    message = r"t:2: the target has 2 words and its symbols show 1, .* write one for the example"
    with pytest.raises(Problem, match=message):
        open_rows(TSV, tmp_path, how, tmp_path / "cache")


def test_objects_hold_lists(tmp_path: Path) -> None:
    (tmp_path / "o").write_text(
        '{"source": "a", "target": "b c", "w": [1, 0.5]}\n{"source": "a", "target": "b", "w": 2}\n',
        encoding="utf-8",
    )
    corpus = test_read.corpus({"kind": "jsonl", "path": "o", "weight": "w"})
    found = [(one.weight, one.word_weights) for one in corpus.read(tmp_path, Skipped())]
    assert found == [(1, (1, 0.5)), (2, ())]


SETTINGS = """
data:
  train: {kind: tsv, path: t, weight: 3}
  dev: {kind: tsv, path: d}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 16, width: 24}
  decoder: {kind: recurrent, embedding: 16, width: 24}
train: {max_steps: 10, batch: {tokens: 200}, threads: 1, precision: fp32,
  optimiser: {rate: 2e-2, schedule: {kind: inverse_sqrt, warmup: 10}}}
validation: {every: 5, examples: 3}
search: greedy
metrics: [exact]
"""


def test_a_word_without_weight_teaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "d").write_text("1\t1 x\n2\t2 x\n3\t3 x\n", encoding="utf-8")

    def run(name: str, wrong: str, weights: str, *changes: str) -> str:
        """Train on pairs of which every second says what is wrong; return what was learned."""
        right, other = ("{0}\t{0} x\t1 1 1\n", "{0}\t{0} {1}\t{2}\n")
        lines = (
            (other if n % 2 else right).format(n % 10, wrong[n // 2 % 2], weights)
            for n in range(80)
        )
        (tmp_path / "t").write_text("".join(lines), encoding="utf-8")
        experiment = parse(SETTINGS, Experiment, "x", changes)
        assert train(experiment, tmp_path, tmp_path / name, Show(quiet=True)) == 0
        saved = max((tmp_path / name / "checkpoints").glob("step-*"))
        return folder.digest(saved / "weights.safetensors")

    deaf = run("deaf", "37", "1 0 0")
    assert run("as deaf", "73", "1 0 0") == deaf, "whatever they say, nobody listens"
    ones = run("ones", "37", "1 1 1")
    assert run("other ones", "73", "1 1 1") != ones != deaf
    assert run("plain", "37", "1 1 1", "data.train.weight=null") == ones
    run("parts", "37", "1 0 0", "train.max_steps=5")
    assert run("parts", "37", "1 0 0") == deaf
