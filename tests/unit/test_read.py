from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from transduce.blueprint import Blueprint, parse
from transduce.data.batch import Example
from transduce.data.corpora import CorpusBlueprint
from transduce.data.lines import LONGEST, Skipped, read_lines
from transduce.problem import Problem

PARALLEL = {"kind": "parallel", "source": "a", "target": "b"}
TSV: dict[str, Any] = {"kind": "tsv", "path": "t"}
CSV: dict[str, Any] = {"kind": "csv", "path": "t"}
JSONL: dict[str, Any] = {"kind": "jsonl", "path": "t"}


class Experiment(Blueprint):
    train: CorpusBlueprint


def corpus(settings: dict[str, Any]) -> CorpusBlueprint:
    return parse(json.dumps({"train": settings}), Experiment).train


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read(folder: Path, settings: dict[str, Any], **files: bytes) -> list[Example]:
    put(folder, files)
    return list(corpus(settings).read(folder, Skipped()))


def texts(examples: list[Example]) -> list[tuple[str, ...]]:
    return [(example.sources["source"], *example.references) for example in examples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def test_every_format_reads_the_same_examples(tmp_path: Path) -> None:
    rows = [("ein Haus", "a house"), ("zwei\u2028Häuser", "two houses")]
    source, target = ("".join(f"{row[side]}\n" for row in rows).encode() for side in (0, 1))
    table = "".join(f"{a}\t{b}\n" for a, b in rows).encode()
    objects = "".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in rows).encode()
    assert texts(read(tmp_path, PARALLEL, a=source, b=target)) == rows
    assert texts(read(tmp_path, TSV, t=table)) == rows
    assert texts(read(tmp_path, CSV, t=table.replace(b"\t", b","))) == rows
    assert texts(read(tmp_path, JSONL, t=objects)) == rows
    assert texts(read(tmp_path, JSONL, t=gzip.compress(objects))) == rows


def test_an_example_knows_its_place(tmp_path: Path) -> None:
    places = [example.place for example in read(tmp_path, TSV, t=b"a\tb\nc\td\n")]
    assert places == [f"{tmp_path}/t:1", f"{tmp_path}/t:2"]
    quoted = read(tmp_path, CSV, t=b'"a\nb",c\nd,e\n')
    assert texts(quoted) == [("a\nb", "c"), ("d", "e")]
    assert [example.place for example in quoted] == [f"{tmp_path}/t:1", f"{tmp_path}/t:3"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_marks_are_no_text(
    tmp_path: Path, end: bytes, mark: bytes, last: bool
) -> None:
    content = mark + end.join([b"a\tb", b"c\td"]) + (end if last else b"")
    for settings in (TSV, {**CSV, "delimiter": "\t"}):
        assert texts(read(tmp_path, settings, t=content)) == [("a", "b"), ("c", "d")]


# What may stand in a file that is split at line feeds, and is not white space alone.
cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\r\n"), min_size=1)
rows = st.lists(
    st.tuples(*[cell.filter(lambda text: not text.isspace() and text[0] != "\ufeff")] * 2),
    min_size=1,
)


@trying(max_examples=50)
@given(rows=rows)
def test_what_is_written_is_read(folder: Path, rows: list[tuple[str, str]]) -> None:
    table = "".join(f"{a}\t{b}\n" for a, b in rows).encode()
    assert texts(read(folder, TSV, t=table)) == rows
    source, target = ("".join(f"{row[side]}\n" for row in rows).encode() for side in (0, 1))
    assert texts(read(folder, PARALLEL, a=gzip.compress(source), b=target)) == rows
    quoted = io.StringIO()
    csv.writer(quoted).writerows(rows)
    assert texts(read(folder, CSV, t=quoted.getvalue().encode())) == rows
    objects = "".join(json.dumps({"source": a, "target": [b]}) + "\n" for a, b in rows)
    assert texts(read(folder, JSONL, t=objects.encode())) == rows


@trying(max_examples=50)
@given(
    content=st.binary(max_size=60) | st.text("a\tb\n\r\"{}:,'\ufeff\0", max_size=40).map(str.encode)
)
@pytest.mark.parametrize("settings", [TSV, CSV, JSONL, {**PARALLEL, "source": "t", "target": "t"}])
@pytest.mark.parametrize("policy", ["error", "skip"])
def test_any_bytes_are_examples_or_a_problem_at_a_place(
    folder: Path, settings: dict[str, Any], policy: str, content: bytes
) -> None:
    found: list[tuple[str, ...]] = []
    problem = None
    try:
        found = texts(read(folder, {**settings, "on_bad_line": policy}, t=content))
    except Problem as caught:
        problem = caught
    assert bool(found) != bool(problem)
    assert all(text.strip() for row in found for text in row)
    if problem:
        assert re.match(f"{folder}/t(:[0-9]+)?: .*(; |no example)", str(problem))


def test_several_references(tmp_path: Path) -> None:
    several = {**PARALLEL, "target": ["b", "c"]}
    assert texts(read(tmp_path, several, a=b"x\n", b=b"y\n", c=b"z\n")) == [("x", "y", "z")]
    columns = {**TSV, "target": [3, 2]}
    assert texts(read(tmp_path, columns, t=b"x\ty\tz\n")) == [("x", "z", "y")]
    listed = b'{"source": "x", "target": ["y", "z"]}\n'
    assert texts(read(tmp_path, JSONL, t=listed)) == [("x", "y", "z")]


def test_grouping_gathers_the_references_of_equal_sources(tmp_path: Path) -> None:
    table = b"x\t1\ny\t2\nx\t3\n"
    grouped = read(tmp_path, {**TSV, "group": True}, t=table)
    assert texts(grouped) == [("x", "1", "3"), ("y", "2")]
    assert grouped[0].place == f"{tmp_path}/t:1"
    assert texts(read(tmp_path, TSV, t=table)) == [("x", "1"), ("y", "2"), ("x", "3")]


def test_columns_by_name_and_by_number(tmp_path: Path) -> None:
    table = b"id,de,en\n1,Haus,house\n"
    by_name = {**CSV, "source": "de", "target": "en"}
    by_number = {**CSV, "source": 2, "target": 3, "header": True}
    assert texts(read(tmp_path, by_name, t=table)) == [("Haus", "house")]
    assert texts(read(tmp_path, by_number, t=table)) == [("Haus", "house")]


def test_several_files_are_one_corpus(tmp_path: Path) -> None:
    two = {**TSV, "path": ["t", "u"], "source": "a", "target": "b"}
    found = read(tmp_path, two, t=b"a\tb\n1\t2\n", u=b"b\ta\n4\t3\n")
    assert texts(found) == [("1", "2"), ("3", "4")]
    assert corpus(two).files == ("t", "u")
    assert corpus({**PARALLEL, "target": ["b", "c"]}).files == ("a", "b", "c")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t")
    with pytest.raises(Problem, match="t: this is no ordinary file; name one"):
        read(tmp_path, TSV)
    (tmp_path / "t").unlink()
    (tmp_path / "t").mkdir()
    with pytest.raises(Problem, match="t: this is no ordinary file; name one"):
        read(tmp_path, TSV)


def test_skipping_leaves_out_faults_alone_and_counts_them(tmp_path: Path) -> None:
    put(tmp_path, {"t": b"a\tb\n\tb\n\xff\tb\nc\n  \td\ne\tf\n" + b"x" * (LONGEST + 5) + b"\ng\th"})
    skipped = Skipped()
    found = list(corpus({**TSV, "on_bad_line": "skip"}).read(tmp_path, skipped))
    assert texts(found) == [("a", "b"), ("e", "f"), ("g", "h")]
    assert skipped.counts == Counter(
        {"empty source": 2, "not UTF-8": 1, "wrong number of columns": 1, "endless line": 1}
    )
    assert skipped.places["empty source"] == [f"{tmp_path}/t:2", f"{tmp_path}/t:5"]


def test_lines_that_do_not_match_cannot_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="this line is missing"):
        read(tmp_path, {**PARALLEL, "on_bad_line": "skip"}, a=b"1\n2\n", b=b"1\n")


def test_skipping_everything_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="there is no example in it"):
        read(tmp_path, {**TSV, "on_bad_line": "skip"}, t=b"\xff\t\xff\n")


def test_many_faults_take_little_room(tmp_path: Path) -> None:
    skipped = Skipped()
    put(tmp_path, {"t": b"a\tb\n" + b"a\n" * 1000})
    list(corpus({**TSV, "on_bad_line": "skip"}).read(tmp_path, skipped))
    assert skipped.counts["wrong number of columns"] == 1000
    assert len(skipped.places["wrong number of columns"]) == 100


def test_reading_goes_line_by_line(tmp_path: Path) -> None:
    put(tmp_path, {"a": b"a\nb\n", "b": b"a\n\xff\n"})
    examples = corpus(PARALLEL).read(tmp_path, Skipped())
    assert next(examples).references == ("a",)
    with pytest.raises(Problem):
        next(examples)


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("multi30k/raw", {"kind": "parallel", "source": "val.de.gz", "target": "val.en.gz"}, 1014),
        ("e2e_nlg", {"kind": "tsv", "path": "dev.tsv.gz", "group": True}, 547),
        ("cmudict_g2p", {"kind": "tsv", "path": "test.tsv.gz", "group": True}, 11_994),
        ("tatoeba_cmn_eng", {"kind": "tsv", "path": "dev.tsv.gz", "group": True}, 962),
    ],
)
def test_real_corpora(
    shared: Callable[[str], Path], name: str, settings: dict[str, Any], count: int
) -> None:
    assert len(list(corpus(settings).read(shared(name), Skipped()))) == count


def test_a_mark_is_no_text_at_the_start_alone(tmp_path: Path) -> None:
    found = texts(read(tmp_path, TSV, t="\ufeffa\tb\n\ufeffc\td\n".encode()))
    assert found == [("a", "b"), ("\ufeffc", "d")]


def test_lines_count_from_one(tmp_path: Path) -> None:
    put(tmp_path, {"t": b"a\n\nb"})
    assert [(line.place[-1], line.text) for line in read_lines(tmp_path / "t")] == [
        ("1", "a"),
        ("2", ""),
        ("3", "b"),
    ]


@pytest.mark.parametrize("known", ["weight", "ease"])
def test_numbers_are_read_in_every_format(tmp_path: Path, known: str) -> None:
    table = b"x\ty\t0.5\nv\tw\t2\n"
    objects = b'{"source": "x", "target": "y", "w": 0.5}\n{"source": "v", "target": "w", "w": 2}\n'
    found = [
        read(tmp_path, {**TSV, known: 3}, t=table),
        read(
            tmp_path,
            {**CSV, "source": "s", "target": "t", known: "w"},
            t=b"s,t,w\n" + table.replace(b"\t", b","),
        ),
        read(tmp_path, {**JSONL, known: "w"}, t=objects),
        read(tmp_path, {**PARALLEL, known: "c"}, a=b"x\nv\n", b=b"y\nw\n", c=b"0.5\n2\n"),
    ]
    for examples in found:
        assert texts(examples) == [("x", "y"), ("v", "w")]
        assert [getattr(example, known) for example in examples] == [0.5, 2.0]
    plain = read(tmp_path, TSV, t=table)
    assert [(example.weight, example.ease) for example in plain] == [(1.0, 0.0)] * 2


def test_all_that_is_known_is_read_together(tmp_path: Path) -> None:
    known = {"weight": 3, "ease": 4, "alignment": 5}
    (found,) = read(tmp_path, {**TSV, **known}, t=b"a b\tc\t2\t-7.5\t1-0\n")
    assert (found.weight, found.ease, found.alignment) == (2.0, -7.5, ((1, 0),))
    row = b'{"source": "a b", "target": "c", "w": 2, "e": -7.5, "a": "1-0"}\n'
    keys = {"weight": "w", "ease": "e", "alignment": "a"}
    (same,) = read(tmp_path, {**JSONL, **keys}, t=row)
    assert (same.weight, same.ease, same.alignment) == (2.0, -7.5, ((1, 0),))


@pytest.mark.parametrize("weight", ["-1", "nan", "inf", "much", ""])
def test_what_is_no_weight_is_refused(tmp_path: Path, weight: str) -> None:
    with pytest.raises(Problem, match=r"t:1: the weight .* is no number from 0 on; write one"):
        read(tmp_path, {**TSV, "weight": 3}, t=f"a\tb\t{weight}\n".encode())
    with pytest.raises(Problem, match="stay apart"):
        corpus({**TSV, "weight": 3, "group": True})


@pytest.mark.parametrize("ease", ["nan", "-inf", "much", ""])
def test_what_is_no_ease_is_refused(tmp_path: Path, ease: str) -> None:
    with pytest.raises(Problem, match=r"t:1: the ease .* is no number; write one"):
        read(tmp_path, {**TSV, "ease": 3}, t=f"a\tb\t{ease}\n".encode())
    with pytest.raises(Problem, match="stay apart"):
        corpus({**TSV, "ease": 3, "group": True})


def test_a_tag_stands_before_every_source(tmp_path: Path) -> None:
    tagged = {**TSV, "tag": "<2de>"}
    assert texts(read(tmp_path, tagged, t=b"a\tb\nc\td\n")) == [("<2de> a", "b"), ("<2de> c", "d")]
    assert corpus(tagged).reserved == ("<2de>",)
    assert "tag" not in corpus(TSV).encoded(), "what is not set changes no store"
