"""Alignments of words: how they are read, kept, and brought to the symbols of any tokeniser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st
from test_encode import LINES, made
from test_encode import small as small
from test_read import CSV, JSONL, PARALLEL, TSV, corpus, read

from transduce import tree
from transduce.data.alignment import FILES
from transduce.data.batch import Batch
from transduce.data.corpora import open_rows
from transduce.data.encode import Encoding, LimitsBlueprint
from transduce.data.lines import Skipped
from transduce.data.rows import Rows
from transduce.data.tables import TsvBlueprint
from transduce.problem import Problem
from transduce.sequences import Sequences
from transduce.text.codec import CodecBlueprint, TextBlueprint, TextCodec, learn_codecs

TEXTS = [
    ("das kleine Haus", "the little house", "0-0 1-1 2-2"),
    ("wir gehen nach Hause", "we go home", "0-0 1-1 3-2 2-2 3-2"),
    ("ja", "yes indeed", ""),
    ("<x> Häuser ändern sich", "houses change", "1-0 2-1 3-1"),
]
SENTENCEPIECE = {"kind": "sentencepiece", "size": 300, "sampling": {"variants": 3}}
TOKENS: dict[str, Any] = {
    "words": "words",
    "spelt": {"kind": "words", "byte_fallback": True, "size": 262},
    "characters": "characters",
    "bytes": "bytes",
    "sentencepiece": SENTENCEPIECE,
}


def codecs(tokens: object, **more: object) -> dict[str, TextCodec]:
    side = {"tokens": tokens, **more}
    text = TextBlueprint.model_validate({"source": side, "reserved": ["<x>"]})
    return learn_codecs(text, [a for a, _, _ in TEXTS], [b for _, b, _ in TEXTS], ["<tag>"])


def write(home: Path) -> None:
    lines = ["\t".join(row) + "\n" for row in TEXTS]
    (home / "t").write_text("".join(lines), encoding="utf-8")


def rows(home: Path, how: dict[str, TextCodec], settings: dict[str, Any]) -> Rows:
    write(home)
    encoding = Encoding(how, LimitsBlueprint(), sampled=True)
    return open_rows(corpus(settings), home, encoding, home / "cache")


def aligned(batch: Batch, row: int) -> set[tuple[int, int]]:
    assert batch.alignment is not None
    size = int(batch.alignment.lengths[row])
    found = [(int(t), int(s)) for t, s in batch.alignment.data[row, :size]]
    assert len(found) == len(set(found))
    return set(found)


def test_alignments_are_read_in_every_format(tmp_path: Path) -> None:
    table = b"a b\tc d\t0-0 1-0\ne\tf\t\n"
    objects = [{"source": "a b", "target": "c d", "w": "0-0 1-0"}]
    objects.append({"source": "e", "target": "f", "w": " "})
    found = [
        read(tmp_path, {**TSV, "alignment": 3}, t=table),
        read(
            tmp_path,
            {**CSV, "source": "s", "target": "t", "alignment": "w"},
            t=b"s,t,w\n" + table.replace(b"\t", b","),
        ),
        read(
            tmp_path,
            {**JSONL, "alignment": "w"},
            t="".join(json.dumps(one) + "\n" for one in objects).encode(),
        ),
        read(
            tmp_path, {**PARALLEL, "alignment": "c"}, a=b"a b\ne\n", b=b"c d\nf\n", c=b"0-0 1-0\n\n"
        ),
    ]
    for examples in found:
        assert [example.alignment for example in examples] == [((0, 0), (1, 0)), ()]
        assert [example.weight for example in examples] == [1.0, 1.0]
    both = read(tmp_path, {**TSV, "alignment": 3, "weight": 4}, t=b"a\tb\t0-0\t2\nc\td\t\t0.5\n")
    assert [(e.alignment, e.weight) for e in both] == [(((0, 0),), 2.0), ((), 0.5)]
    files = {"a": b"a b\n", "b": b"c\n", "c": b"1-0\n", "w": b"3\n"}
    both = read(tmp_path, {**PARALLEL, "alignment": "c", "weight": "w"}, **files)
    assert [(e.alignment, e.weight) for e in both] == [(((1, 0),), 3.0)]
    tagged = read(tmp_path, {**TSV, "alignment": 3, "tag": "<2de>"}, t=table)
    assert tagged[0].alignment == ((1, 0), (2, 0)), "a tag is a word before the others"


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("0:0", "'0:0' in the alignment is no pair of places"),
        ("0-0 1", "'1' in the alignment is no pair"),
        ("0-0-0", "no pair"),
        ("-1-0", "no pair"),
        ("0-0p", "no pair"),
        ("\u0661-0", "no pair"),
        ("99999999999999999999-0", "no pair"),
        ("0-0 2-1", "2-1 in the alignment is outside the source, which has 2 words"),
        ("1-3", "1-3 in the alignment is outside the target, which has 3 words"),
    ],
)
def test_what_is_no_alignment_is_refused(tmp_path: Path, written: str, what: str) -> None:
    wrong = f"a\tb\t0-0\na b\tc d e\t{written}\n".encode()
    with pytest.raises(Problem, match=what) as caught:
        read(tmp_path, {**TSV, "alignment": 3}, t=wrong)
    assert str(caught.value).startswith(f"{tmp_path}/t:2: ")
    skipped = Skipped()
    skipping = corpus({**TSV, "alignment": 3, "on_bad_line": "skip"})
    assert len(list(skipping.read(tmp_path, skipped))) == 1
    assert skipped.counts == {"wrong alignment": 1}


def test_an_alignment_is_of_one_source_and_one_target(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="is of one target; leave one out"):
        corpus({**TSV, "alignment": 3, "group": True})
    with pytest.raises(Problem, match="is of one target, and there are 2; keep one"):
        read(tmp_path, {**TSV, "alignment": 4, "target": [2, 3]}, t=b"a\tb\tc\t0-0\n")
    with pytest.raises(Problem, match="no text"):
        read(tmp_path, {**JSONL, "alignment": "w"}, t=b'{"source": "a", "target": "b", "w": [0]}')


def spoken(codec: TextCodec, ids: list[int], text: str) -> list[set[int]]:
    """Return the symbols of each word, by putting the words together again."""
    numbers = codec.words(ids)
    assert len(numbers) == len(ids)
    found = [{i for i, n in enumerate(numbers) if n == k} for k in range(1, max(numbers) + 1)]
    for places, word in zip(found, text.split(), strict=True):
        assert codec.decode(ids[place] for place in sorted(places)).strip() == word
    return found


@pytest.mark.filterwarnings("ignore:the text has")
@pytest.mark.parametrize("tokens", TOKENS)
def test_words_are_found_in_the_symbols(tokens: str) -> None:
    both = codecs(TOKENS[tokens])
    for source, target, _ in TEXTS:
        for side, text in (("source", source), ("target", target)):
            codec = both[side]
            for ids in codec.alternatives(text, 3, seed=1):
                assert all(spoken(codec, ids, text))
    turned = codecs(TOKENS[tokens], reverse=True)["source"]
    text = TEXTS[1][0]
    assert turned.words(turned.encode(text))[::-1] == both["source"].words(
        both["source"].encode(text)
    )


@trying(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="abäß😀<x>", min_size=1, max_size=4), min_size=1, max_size=6))
def test_whatever_the_words_their_symbols_show_them(words: list[str]) -> None:
    text = " ".join(words)
    for tokens in ("words", "spelt", "characters", "bytes"):
        codec = codecs(TOKENS[tokens])["source"]
        assert max(codec.words(codec.encode(text))) == len(words), tokens


@pytest.mark.filterwarnings("ignore:the text has")
@pytest.mark.parametrize("tokens", TOKENS)
def test_symbols_are_aligned_as_their_words(tmp_path: Path, tokens: str) -> None:
    how = codecs(TOKENS[tokens])
    found = rows(tmp_path, how, {**TSV, "alignment": 3})
    wanted = np.array([3, 2, 0, 1, 1])
    variants = found.variants
    for number in range(3):
        picks = {side: np.full(5, number % count) for side, count in variants.items()}
        batch = found.batch(wanted, picks)
        assert batch.target is not None
        for row, index in enumerate(wanted.tolist()):
            source, target, pairs = TEXTS[index]
            ids = [
                side.data[row, : side.lengths[row]].tolist()
                for side in (batch.sources["source"], batch.labels)
            ]
            read, said = (
                spoken(how[side], own[:-1], text)
                for side, own, text in zip(how, ids, (source, target), strict=True)
            )
            expected = {
                (t, s)
                for a, b in (map(int, pair.split("-")) for pair in pairs.split())
                for t in said[b]
                for s in read[a]
            }
            assert aligned(batch, row) == expected
    plain = found.batch(wanted)
    if tokens == "words":
        assert aligned(plain, 2) == {(0, 0), (1, 1), (2, 2)}
        assert aligned(plain, 3) == {(0, 0), (1, 1), (2, 2), (2, 3)}
    if tokens == "sentencepiece":
        numbers = {
            len(how["source"].words(ids)) for ids in how["source"].alternatives("Hause", 9, 1)
        }
        assert len(numbers) > 1, "a word is cut in several ways"


def test_what_symbols_do_not_show_is_refused(tmp_path: Path) -> None:
    how = {
        side: TextCodec.learn(CodecBlueprint.model_validate({"tokens": "characters"}), ["abc"])
        for side in ("source", "target")
    }
    with pytest.raises(Problem, match="the source has 3 words and its symbols show 1") as caught:
        rows(tmp_path, how, {**TSV, "alignment": 3})
    assert str(caught.value).startswith(f"{tmp_path}/t:1: ")
    left = rows(tmp_path, how, {**TSV, "alignment": 3, "on_bad_line": "skip"})
    assert left.examples == 1, "what is not aligned needs no words"
    assert left.skipped.counts == {"words that symbols do not show": 3}
    batch = left.batch(np.array([0]))
    assert batch.alignment is not None
    assert batch.alignment.data.shape == (1, 0, 2)


def test_batches_carry_alignments_along(tmp_path: Path) -> None:
    batch = rows(tmp_path, codecs("words"), {**TSV, "alignment": 3}).batch(np.arange(4))
    part = batch.take(torch.tensor([2, 1]))
    assert aligned(part, 0) == set()
    assert aligned(part, 1) == aligned(batch, 1) != set()
    alone = batch.take(torch.tensor([2]))
    assert aligned(alone.to(torch.device("cpu")), 0) == set()
    assert batch.to(torch.device("meta")).alignment is not None


def test_in_a_mixture_a_corpus_without_alignments_has_none(tmp_path: Path) -> None:
    other = {"kind": "tsv", "path": "t"}
    mixture = {"kind": "mixture", "of": [other, {**other, "alignment": 3}]}
    assert corpus(mixture).aligned
    batch = rows(tmp_path, codecs("words"), mixture).batch(np.array([5, 1, 4, 0]))
    assert [len(aligned(batch, row)) for row in range(4)] == [4, 0, 3, 0]
    plain = rows(tmp_path, codecs("words"), {**mixture, "of": [other, other]})
    assert plain.batch(np.array([0, 5])).alignment is None
    noisy = {"kind": "denoise", "path": "t", "noise": ["mass"]}
    assert not corpus(noisy).aligned


def test_a_corpus_without_alignments_is_what_it_was(tmp_path: Path) -> None:
    how = codecs("words")
    plain, other = (rows(tmp_path, how, {**TSV, **more}) for more in ({}, {"alignment": 3}))
    assert plain.batch(np.arange(4)).alignment is None
    assert plain.fingerprint != other.fingerprint
    assert "alignment" not in corpus(TSV).encoded(), "what is not set changes no store"
    names = {path.name.rpartition(".")[0] for path in (tmp_path / "cache").rglob("*.ends")}
    assert names >= set(FILES)


@pytest.mark.filterwarnings("ignore:the text has")
@pytest.mark.parametrize("tokens", ["words", SENTENCEPIECE], ids=str)
def test_several_processes_write_the_same_alignments(tmp_path: Path, tokens: object) -> None:
    text = TextBlueprint.model_validate({"source": {"tokens": tokens}})
    both = learn_codecs(text, LINES, LINES)
    lines = [f"{line}\t{line}\t{'0-0' if n % 3 else ''}\n" for n, line in enumerate(LINES)]
    (tmp_path / "t").write_text("".join(lines), encoding="utf-8")
    blueprint = TsvBlueprint(path="t", alignment=3)
    one, several = (
        made(tmp_path, blueprint, Encoding(both, LimitsBlueprint(), True, 2, processes))
        for processes in (1, 3)
    )
    assert one == several
    assert one.keys() >= {f"{name}.values" for name in FILES}
    assert len(np.frombuffer(one["alignment.values"], "<u2")) == 400


def test_widening_repeats_alignments() -> None:
    pairs = Sequences.stack([torch.tensor([[0, 1]]), torch.zeros(0, 2, dtype=torch.long)])
    twice = tree.widen(pairs, 2)
    assert twice.lengths.tolist() == [1, 1, 0, 0]
