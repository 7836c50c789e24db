from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.data import store as module
from transduce.data.batch import Example
from transduce.data.encode import encode
from transduce.data.lines import Skipped
from transduce.data.read import CorpusBlueprint
from transduce.data.rows import Counts
from transduce.data.store import Encoding, LimitsBlueprint, Store, prepare
from transduce.data.tables import TsvBlueprint
from transduce.problem import Problem
from transduce.sequences import Sequences
from transduce.text.codec import CodecBlueprint, TextBlueprint, TextCodec, learn_codecs
from transduce.text.vocabulary import BOS, EOS

PAIRS = [("a b c", "C B A"), ("b", "B"), ("a a", "A A"), ("c", "zebra C")]


def codecs(**tokens: Any) -> dict[str, TextCodec]:
    side = CodecBlueprint.model_validate({"tokens": {"kind": "words", **tokens}})
    learned = [source for source, _ in PAIRS], ["A B C"]
    return learn_codecs(TextBlueprint(source=side), *learned)


def encoding(limit: int = 1024, **tokens: Any) -> Encoding:
    return Encoding(codecs(**tokens), LimitsBlueprint(source=limit, target=limit))


def write(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> None:
    table = "".join(f"{source}\t{target}\n" for source, target in pairs)
    (folder / "t").write_bytes(table.encode())


def make(folder: Path, how: Encoding | None = None, **settings: Any) -> Store:
    corpus = TsvBlueprint(path="t", **settings)
    return prepare(corpus, folder, how or encoding(), folder / "cache")


def real(rows: Sequences | None) -> list[list[int]]:
    assert rows is not None
    assert rows.size == rows.lengths.max()
    assert not rows.data[~rows.mask()].any()
    return [row[:size].tolist() for row, size in zip(rows.data, rows.lengths, strict=True)]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("ready")
    write(folder)
    return make(folder)


@given(rows=st.lists(st.integers(0, len(PAIRS) - 1), min_size=1))
def test_a_batch_holds_the_encoded_texts(ready: Store, rows: list[int]) -> None:
    batch = ready.batch(np.array(rows))
    learned = codecs()
    source = [[*learned["source"].encode(PAIRS[row][0]), EOS] for row in rows]
    target = [[BOS, *learned["target"].encode(PAIRS[row][1]), EOS] for row in rows]
    assert real(batch.sources["source"]) == source
    assert real(batch.target) == target
    assert batch.index.tolist() == rows
    lengths = [[len(row) for row in source], [len(row) - 1 for row in target]]
    assert ready.lengths(np.array(rows)).tolist() == lengths


def test_texts_and_places_are_kept(ready: Store, tmp_path: Path) -> None:
    assert len(ready) == ready.examples == 4
    example = ready.example(3)
    assert (example.sources, example.references) == ({"source": "c"}, ("zebra C",))
    assert example.place.endswith("/t:4")


def test_counts(ready: Store) -> None:
    assert ready.counts["source"] == Counts(texts=4, symbols=7, unknown=0, longest=3)
    assert ready.counts["target"].unknown == 1
    assert ready.skipped == Skipped()


def test_a_row_is_a_source_with_one_reference(tmp_path: Path) -> None:
    write(tmp_path, [("a", "A"), ("b", "B"), ("a", "C")])
    grouped = make(tmp_path, group=True)
    assert (grouped.examples, len(grouped)) == (2, 3)
    assert grouped.example(0).references == ("A", "C")
    assert grouped.example(1).references == ("B",)
    batch = grouped.batch(np.array([2, 1, 0]))
    plain = make(tmp_path).batch(np.array([1, 2, 0]))
    assert real(batch.sources["source"]) == real(plain.sources["source"])
    assert real(batch.target) == real(plain.target)
    sources = grouped.sources(np.array([1, 0]))
    assert sources.target is None
    assert sources.index.tolist() == [1, 0]
    assert real(sources.sources["source"]) == real(
        grouped.batch(np.array([2, 0])).sources["source"]
    )


def test_a_store_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    first = make(tmp_path)

    def fail(*_: object) -> Iterator[Example]:
        raise AssertionError("the corpus is read again")

    monkeypatch.setattr(CorpusBlueprint, "read", fail)
    again = make(tmp_path)
    assert again.fingerprint == first.fingerprint
    assert real(again.batch(np.arange(4)).target) == real(first.batch(np.arange(4)).target)


def test_all_that_matters_names_a_store(tmp_path: Path) -> None:
    write(tmp_path)
    sampled = encoding(kind="sentencepiece", size=263, sampling={"variants": 2})
    stores = [
        make(tmp_path),
        make(tmp_path, on_bad_line="skip"),
        make(tmp_path, encoding(limit=100)),
        make(tmp_path, encoding(byte_fallback=True)),
        make(tmp_path, sampled),
        make(tmp_path, Encoding(sampled.codecs, sampled.limits, sampled=True)),
    ]
    write(tmp_path, PAIRS[:3])
    stores.append(make(tmp_path))
    assert len({store.fingerprint for store in stores}) == len(stores)
    folders = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(folders) == len(stores)


def test_the_same_corpus_elsewhere_has_other_places_alone(tmp_path: Path) -> None:
    stores = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
        stores.append(
            prepare(TsvBlueprint(path="t"), tmp_path / name, encoding(), tmp_path / "cache")
        )
        assert stores[-1].example(0).place == f"{tmp_path}/{name}/t:1"
    assert stores[0].fingerprint == stores[1].fingerprint


def test_a_store_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Encoding, "encode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(tmp_path)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert len(make(tmp_path)) == 4


def test_a_file_that_changes_while_it_is_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)

    def change(path: Path, corpus: CorpusBlueprint, base: Path, how: Encoding) -> None:
        encode(path, corpus, base, how)
        write(tmp_path, PAIRS[:1])

    monkeypatch.setattr(module, "encode", change)
    with pytest.raises(Problem, match="t: a file changed while it was read; start again"):
        make(tmp_path)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_those_who_come_at_once_share_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    made = []

    def count(path: Path, corpus: CorpusBlueprint, base: Path, how: Encoding) -> None:
        made.append(path)
        encode(path, corpus, base, how)

    monkeypatch.setattr(module, "encode", count)
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: make(tmp_path), range(4)))
    assert len(made) == 1
    assert {len(store) for store in stores} == {4}


def test_too_many_symbols_are_a_fault_and_never_cut(tmp_path: Path) -> None:
    write(tmp_path)
    expected = r"t:1: the source has 3 symbols, more than 2; shorten it, raise the limit, or set"
    with pytest.raises(Problem, match=expected):
        make(tmp_path, encoding(limit=2))
    for _ in range(2):  # made, then opened
        store = make(tmp_path, encoding(limit=2), on_bad_line="skip")
        assert store.skipped.counts == {"too many symbols in a source": 1}
        assert store.skipped.places == {"too many symbols in a source": [f"{tmp_path}/t:1"]}
        assert [store.example(index).sources["source"] for index in range(3)] == ["b", "a a", "c"]
    write(tmp_path, PAIRS[:1])
    with pytest.raises(Problem, match="t: no example is left of it"):
        make(tmp_path, encoding(limit=2), on_bad_line="skip")


def test_faults_of_reading_are_kept_too(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a\tA\n\tB\n")
    assert make(tmp_path, on_bad_line="skip").skipped.counts == {"empty source": 1}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="t: there is no such file"):
        make(tmp_path)


@pytest.mark.parametrize(
    "name", ["facts.json", "first", "source.values", "target.ends", "places.ends"]
)
@pytest.mark.parametrize("cut", [8, 9])
def test_a_damaged_store_is_named(tmp_path: Path, name: str, cut: int) -> None:
    write(tmp_path)
    make(tmp_path)
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(Problem, match=f"{path.parent}: .*; delete"):
        make(tmp_path)


def test_many_symbols_need_wide_numbers(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(70_000)]
    (tmp_path / "t").write_bytes("".join(f"{word}\ta\n" for word in words[-3:]).encode())
    blueprint = CodecBlueprint.model_validate({"tokens": {"kind": "words"}})
    wide = TextCodec.learn(blueprint, words)
    store = make(tmp_path, Encoding({"source": wide, "target": wide}, LimitsBlueprint()))
    found = real(store.batch(np.arange(3)).sources["source"])
    assert [wide.decode(row) for row in found] == words[-3:]
    assert max(map(max, found)) > 2**16


def test_the_first_text_beyond_a_length_is_named(tmp_path: Path) -> None:
    write(tmp_path, [("a", "A"), ("b", "B"), ("a", "C A A"), ("a b", "A"), ("a b c", "B C")])
    store = make(tmp_path, group=True)
    what = "has 4 symbols with its end, more than 3"
    source, target = store.beyond("source", 3), store.beyond("target", 3)
    assert source is not None
    assert target is not None
    assert (source.place, source.what) == (store.example(3).place, f"the source {what}")
    assert (target.place, target.what) == (store.example(0).place, f"the target {what}")
    assert store.example(3).place.endswith("t:5")
    assert store.beyond("source", 4) is store.beyond("target", 4) is None


def test_variants_are_stored_and_picked(tmp_path: Path) -> None:
    words = ["some", "words", "like", "these", "are", "cut", "somewhere", "else"]
    lines = [" ".join(random.Random(n).sample(words, 6)) for n in range(50)]
    write(tmp_path, [(line, "A") for line in lines])
    settings = {"kind": "sentencepiece", "size": 280, "sampling": {"variants": 4}}
    tokens = CodecBlueprint.model_validate({"tokens": settings})
    target = CodecBlueprint.model_validate({"tokens": "bytes"})
    learned = learn_codecs(TextBlueprint(source=tokens, target=target), lines, [])
    how = Encoding(learned, LimitsBlueprint(), sampled=True)
    store = make(tmp_path, how)
    assert store.variants == {"source": 4, "target": 1}
    rows = np.arange(50)
    seen = []
    for pick in range(4):
        picks = {"source": np.full(50, pick)}
        batch = store.batch(rows, picks)
        seen.append(real(batch.sources["source"]))
        assert [learned["source"].decode(row) for row in seen[-1]] == lines
        assert store.lengths(rows, picks)[0].tolist() == [len(row) for row in seen[-1]]
    assert seen[0] == real(store.batch(rows).sources["source"])
    assert seen[0] == [[*learned["source"].encode(line), EOS] for line in lines]
    assert len({tuple(row) for variant in seen for row in variant}) > 60
    longest = max(len(row) for row in seen[0]) - 1
    tight = make(tmp_path, Encoding(learned, LimitsBlueprint(source=longest), sampled=True))
    drawn = [tight.lengths(rows, {"source": np.full(50, pick)})[0] for pick in range(4)]
    assert max(row.max() for row in drawn) == longest + 1
    assert max(len(row) for variant in seen for row in variant) > longest + 1
    assert tight.beyond("source", longest + 1) is None
    assert store.beyond("source", longest + 1), "a variant is longer than the best"
    again = prepare(TsvBlueprint(path="t"), tmp_path, how, tmp_path / "other")
    assert real(again.batch(rows, {"source": np.full(50, 3)}).sources["source"]) == seen[3]


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        (tmp_path / "t").write_bytes(b"a b c a b c\tA B C\n" * lines)
        tracemalloc.start()
        assert len(make(tmp_path, how)) == lines
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    how = encoding()
    peak(10)
    assert peak(20_000) < peak(1000) + 200_000


def test_what_is_new_in_a_source_has_the_same_number_on_both_sides(tmp_path: Path) -> None:
    write(tmp_path, [("a x b x y z", "z X x"), ("y y a", "a y x")])
    how = encoding()
    joint = {"source": how.codecs["source"], "target": how.codecs["source"]}
    size, (a, b) = joint["source"].size, joint["source"].encode("a b")
    store = make(tmp_path, Encoding(joint, how.limits, slots=2))
    batch = store.batch(np.arange(2))
    x, y, unknown = size, size + 1, 0
    assert real(batch.sources["source"]) == [[a, x, b, x, y, unknown, EOS], [x, x, a, EOS]]
    assert real(batch.target) == [[BOS, unknown, unknown, x, EOS], [BOS, a, x, unknown, EOS]]
    assert store.counts["source"].unknown == 1
    plain = make(tmp_path, Encoding(joint, how.limits))
    assert plain.fingerprint != store.fingerprint
    assert real(plain.batch(np.arange(2)).sources["source"])[1] == [unknown, unknown, a, EOS]
