"""A first configuration for somebody's data: it fits the data, checks, and trains."""

from __future__ import annotations

import csv
import gzip
import io
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from transduce.blueprint import read
from transduce.data.batch import Example
from transduce.data.lines import Skipped
from transduce.data.read import CorpusBlueprint
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.quickstart import HERE
from transduce.recipe import train
from transduce.recipe.check import check
from transduce.recipe.init import corpus, init
from transduce.train.progress import Show

Pairs = Sequence[tuple[str, str]]
QUIET = Show(quiet=True)
SMALL = [
    f"model.{side}.{size}=8" for side in ("encoder", "decoder") for size in ("embedding", "width")
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def real(name: str, count: int, source: int = 0, target: int = 1) -> list[tuple[str, str]]:
    """Return that many examples from all over the data of a quickstart."""
    text = gzip.decompress((HERE / name / "train.tsv.gz").read_bytes()).decode()
    lines = text.removesuffix("\n").split("\n")
    rows = [line.split("\t") for line in lines[:: len(lines) // count]]
    return [(row[source], row[target]) for row in rows][:count]


PAIRS = real("cmudict", 40)


def tsv(pairs: Pairs) -> bytes:
    return "".join(f"{source}\t{target}\n" for source, target in pairs).encode()


def csv_table(pairs: Pairs) -> bytes:
    table = io.StringIO()
    csv.writer(table).writerows(pairs)
    return table.getvalue().encode()


def jsonl(pairs: Pairs) -> bytes:
    lines = (json.dumps({"source": source, "target": target}) for source, target in pairs)
    return "".join(f"{line}\n" for line in lines).encode()


def column(pairs: Pairs, number: int) -> bytes:
    return "".join(f"{pair[number]}\n" for pair in pairs).encode()


def written(name: str, content: bytes) -> Path:
    path = Path(name)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def begun(pairs: Pairs) -> Experiment:
    """Write a configuration for pairs and read it again."""
    init([written("pairs.tsv", tsv(pairs))], Path("my.yaml"))
    return read(Path("my.yaml"), Experiment)


def examples(corpus: CorpusBlueprint | None) -> list[Example]:
    assert corpus is not None
    return list(corpus.read(Path(), Skipped()))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("pairs.tsv", tsv),
        ("pairs.tsv.gz", tsv),
        ("pairs.CSV", csv_table),
        ("pairs.csv.gz", csv_table),
        ("pairs.jsonl", jsonl),
        ("pairs.jsonl.gz", jsonl),
    ],
)
def test_tables_are_read_and_some_examples_put_aside(name: str, form: Any) -> None:
    said = init([written(name, form(PAIRS))], Path("my.yaml"))
    assert "examples put aside in my.dev.jsonl" in said
    assert "next: transduce check my.yaml, then transduce train my.yaml" in said
    data = read(Path("my.yaml"), Experiment).data
    found = [*examples(data.train), *examples(data.dev)]
    assert sorted((e.sources["source"], *e.references) for e in found) == sorted(PAIRS)
    assert data.test is None


def test_a_first_row_of_headings_is_no_example() -> None:
    said = init([written("pairs.csv", csv_table([("mr", "ref"), *PAIRS]))], Path("my.yaml"))
    assert "the first row of pairs.csv holds names of columns" in said
    data = read(Path("my.yaml"), Experiment).data
    found = [*examples(data.train), *examples(data.dev)]
    assert sorted((e.sources["source"], *e.references) for e in found) == sorted(PAIRS)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_parallel_files_are_read_in_pairs(end: str) -> None:
    sets = {"train": PAIRS[:30], "dev": PAIRS[30:35], "test": PAIRS[35:]}
    paths = [
        written(f"{name}.{side}{end}", column(pairs, number))
        for name, pairs in sets.items()
        for number, side in enumerate(("words", "sounds"))
    ]
    said = init(paths, Path("my.yaml"))
    assert "put aside" not in said
    assert not list(Path().glob("my.*.jsonl"))
    data = read(Path("my.yaml"), Experiment).data
    for part, pairs in zip((data.train, data.dev, data.test), sets.values(), strict=True):
        found = [(e.sources["source"], *e.references) for e in examples(part)]
        assert sorted(found) == sorted(pairs)


def test_kinds_of_files_may_be_mixed() -> None:
    paths = [written("train.tsv", tsv(PAIRS[:30])), written("a.txt", column(PAIRS[30:], 0))]
    paths += [written("b.txt", column(PAIRS[30:], 1)), written("t.jsonl", jsonl(PAIRS[:2]))]
    init(paths, Path("my.yaml"))
    data = read(Path("my.yaml"), Experiment).data
    counts = [len(examples(corpus)) for corpus in (data.train, data.dev, data.test)]
    assert counts == [30, 10, 2]


def test_no_source_is_on_both_sides_and_nothing_is_lost() -> None:
    pairs = [(source, f"{target} {n}") for source, target in PAIRS for n in range(3)]
    data = begun(pairs).data
    train_set, dev = examples(data.train), examples(data.dev)
    sources = [{e.sources["source"] for e in part} for part in (train_set, dev)]
    assert sources[0].isdisjoint(sources[1])
    assert all(len(e.references) == 3 for e in dev), "rows with the same source are references"
    assert len(train_set) + 3 * len(dev) == len(pairs)
    assert len(dev) == 2, "one source in twenty"


def test_dev_and_test_sets_make_references_of_rows_with_the_same_source() -> None:
    twice = [*PAIRS[:3], (PAIRS[0][0], "AH")]
    paths = [written(f"{name}.tsv", tsv(twice)) for name in ("train", "dev", "test")]
    init(paths, Path("my.yaml"))
    data = read(Path("my.yaml"), Experiment).data
    counts = [len(examples(corpus)) for corpus in (data.train, data.dev, data.test)]
    assert counts == [4, 3, 3]


def test_the_data_may_lie_elsewhere(home: Path) -> None:
    (home / "data").mkdir()
    table = written("data/pairs.tsv", tsv(PAIRS))
    init([table, table, table], Path("experiments/first/my.yaml"))
    data = read(Path("experiments/first/my.yaml"), Experiment).data
    assert data.train.files == (str(home / "data" / "pairs.tsv"),)
    init([table, table], Path("my.yaml"))
    assert read(Path("my.yaml"), Experiment).data.train.files == ("data/pairs.tsv",)


NEWS = [f"{'的一是不了人我在有他这中大来上国' * 3}{index:c}" for index in range(0x4E00, 0x4E40)]
SYLLABLES = [f"{index:c}" for index in range(0xAC00, 0xD7A3, 37)]
DECOMPOSED = [
    unicodedata.normalize("NFD", " ".join("".join(SYLLABLES[n : n + 3]) for n in range(m, m + 5)))
    for m in range(len(SYLLABLES) - 8)
]
KINDS: dict[str, tuple[Pairs, str, str, list[str]]] = {
    "sounds": (real("cmudict", 300), "characters", "words", ["exact", "cer"]),
    "few sounds": (PAIRS, "characters", "characters", ["exact", "cer"]),
    "Chinese": (real("tatoeba", 200), "sentencepiece", "characters", ["bleu", "chrf"]),
    "from Chinese": (real("tatoeba", 200, 1, 0), "characters", "sentencepiece", ["bleu", "chrf"]),
    "long Chinese": ([(n, n) for n in NEWS], "characters", "characters", ["bleu", "chrf"]),
    "descriptions": (real("e2e", 60), "sentencepiece", "sentencepiece", ["bleu", "chrf"]),
    "Korean": ([(d, d) for d in DECOMPOSED], "sentencepiece", "sentencepiece", ["bleu", "chrf"]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_configuration_fits_the_data_checks_and_trains(name: str, home: Path) -> None:
    pairs, source, target, metrics = KINDS[name]
    experiment = begun(pairs)
    text = experiment.text
    assert text.target is not None
    assert (text.source.tokens.kind, text.target.tokens.kind) == (source, target)
    assert [metric.kind for metric in experiment.metrics] == metrics
    assert check(experiment, home, QUIET).endswith("nothing stands in the way of training")
    changes = ["train.max_steps=2", "train.threads=1", "validation.every=2", *SMALL]
    trained = read(Path("my.yaml"), Experiment, changes)
    assert train(trained, home, home / "runs" / "my", QUIET) == 0
    assert (home / "runs" / "my" / "report.html").is_file()


def test_more_data_gets_a_larger_model() -> None:
    from transduce.recipe.init import size

    data = begun(PAIRS).data
    few, many = (
        size(data, [Example({"source": f"word{n}"}, ("W ER D",), "") for n in range(count)])
        for count in (1000, 60_000)
    )
    assert few.model.encoder.model_dump()["width"] < many.model.encoder.model_dump()["width"]
    assert few.train.max_steps < many.train.max_steps


def test_every_setting_is_written_with_its_help() -> None:
    begun(PAIRS)
    lines = Path("my.yaml").read_text(encoding="utf-8").split("\n")
    for key in ("seed", "max_steps", "dropout", "patience", "width"):
        (first, *_) = (line for line in lines if line.strip().startswith(f"{key}:"))
        assert "#" in first, first


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"pairs.tsv": b"a\tb\na\tc\n"}, "all examples have the same source; there is nothing"),
        ({"pairs.tsv": b"a\tb\nc\n"}, "pairs.tsv:2: 1 columns, but"),
        ({"pairs.tsv": b""}, "there is no example in it"),
        ({"a.txt": b"a\n"}, "a.txt: text files come in pairs, the source and then the target"),
        ({"a.txt": b"a\nb\n", "b.txt": b"a\n"}, "b.txt:2: this line is missing"),
        ({f"{n}.tsv": b"a\tb\n" for n in range(4)}, "0.tsv: give train, dev and test data, not 4"),
        ({"pairs.tsv": b"a\tb\nc\td\n", "my.dev.jsonl": b"mine"}, "my.dev.jsonl: this file exists"),
    ],
)
def test_data_that_is_none_is_refused_and_nothing_is_written(
    home: Path, files: dict[str, bytes], says: str
) -> None:
    paths = [written(name, content) for name, content in files.items()]
    with pytest.raises(Problem) as caught:
        init([path for path in paths if not path.name.startswith("my.")], Path("my.yaml"))
    assert says in str(caught.value)
    assert {path.name for path in home.iterdir()} == files.keys()
    assert all(path.read_bytes() == files[path.name] for path in paths)


@pytest.mark.parametrize(
    "names", [["a"], ["a.txt"], ["a", "b", "c"], ["a.tsv", "b.tsv"], ["a", "b.tsv"], ["a.tsv", "b"]]
)
def test_files_that_are_no_corpus_together_are_refused(names: list[str]) -> None:
    with pytest.raises(Problem, match=rf"^{names[0]}: text files come in pairs"):
        corpus([Path(name) for name in names], Path())


@pytest.mark.parametrize(
    ("name", "says"),
    [("old.yaml", "this file exists"), ("my", "end in .yaml; say: -o my.yaml")],
)
def test_names_that_do_not_fit_are_refused(name: str, says: str) -> None:
    written("old.yaml", b"mine")
    with pytest.raises(Problem, match=says):
        init([written("pairs.tsv", tsv(PAIRS))], Path(name))
    assert Path("old.yaml").read_bytes() == b"mine"
