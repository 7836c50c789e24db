"""Weighing: what the table holds, what is left out, going on, and what makes no sense."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import MODELS, TRANSFORMER, bundle

from transduce.data.lines import Skipped
from transduce.data.tables import TsvBlueprint
from transduce.data.weighting import BestBlueprint, RatioBlueprint, WeightingBlueprint
from transduce.problem import Problem
from transduce.recipe import weigh as module
from transduce.recipe.score import score
from transduce.recipe.weigh import Models, weigh
from transduce.train import checkpoint
from transduce.train.progress import Show

QUIET = Show(quiet=True)
ROWS = [f"{a}{b}c\t{b}{a}" for a in "abcd" for b in "abcd"]
DIFFERENCES = np.array([-3.0, 0.5, -0.1, 0.0, 2.0])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weigh")
    for name, model in (("general", MODELS["recurrent"]), ("trusted", MODELS["transformer"])):
        made = bundle(model)
        made.save(folder / name, checkpoint.tensors(made.model), "")
    (folder / "data.tsv").write_text("".join(f"{row}\n" for row in ROWS), encoding="utf-8")
    return folder


def table(home: Path, out: Path, *changes: str, data: str = "data.tsv") -> list[list[str]]:
    weigh((home / "general", home / "trusted"), [home / data], out, changes, (), QUIET)
    return [row.split("\t") for row in out.read_text("utf-8").split("\n")[:-1]]


def test_a_weight_is_the_ratio_of_what_both_models_say(home: Path, tmp_path: Path) -> None:
    found = table(home, tmp_path / "out.tsv", "weighting.sharpness=0.5")
    assert ["\t".join(row[:2]) for row in found] == ROWS
    said = [list(score(home / name, ROWS, "x")) for name in ("general", "trusted")]
    for (_, target, weight, difference), *lines in zip(found, *said, strict=True):
        general, trusted = (float(line.split("\t")[0]) for line in lines)
        mean = (trusted - general) / (len(target) + 1)
        assert float(difference) == pytest.approx(mean, abs=1e-4)
        assert float(weight) == pytest.approx(min(1.0, math.exp(0.5 * mean)), abs=1e-4)
    weights = [float(row[2]) for row in found]
    assert min(weights) < max(weights) == 1
    read = list(TsvBlueprint(path="out.tsv", weight=3).read(tmp_path, Skipped()))
    assert [example.weight for example in read] == weights


def test_the_best_are_kept(home: Path, tmp_path: Path) -> None:
    changes = ("weighting={kind: best, share: 0.25}",)
    best = table(home, tmp_path / "best.tsv", *changes)
    every = table(home, tmp_path / "all.tsv")
    least = sorted((float(row[3]) for row in every), reverse=True)[3]
    assert [row[:2] for row in best] == [row[:2] for row in every if float(row[3]) >= least]
    assert {row[2] for row in best} == {"1"}


@pytest.mark.parametrize("kind", WeightingBlueprint.choices().values(), ids=str)
def test_weights_go_with_differences(kind: type[WeightingBlueprint]) -> None:
    found = kind().weights(DIFFERENCES)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(DIFFERENCES)]) >= 0).all()
    assert found[0] < found[4] == 1


def test_what_weights_are() -> None:
    ratio = RatioBlueprint(sharpness=2).weights(DIFFERENCES)
    assert ratio.tolist() == pytest.approx([math.exp(-6), 1, math.exp(-0.2), 1, 1])
    assert BestBlueprint(share=0.4).weights(DIFFERENCES).tolist() == [0, 1, 0, 0, 1]
    assert BestBlueprint(share=1).weights(DIFFERENCES).all()


def test_tags_and_columns_are_those_of_the_corpus(home: Path, tmp_path: Path) -> None:
    text = "".join("{1}\t{0}\n".format(*row.split("\t")) for row in ROWS)
    (tmp_path / "turned.tsv").write_text(text, encoding="utf-8")
    changes = ("corpus.source=2", "corpus.target=1")
    plain = table(home, tmp_path / "plain.tsv", *changes, data=str(tmp_path / "turned.tsv"))
    assert plain == table(home, tmp_path / "out.tsv")
    tagged = table(home, tmp_path / "tagged.tsv", "corpus.tag=<x>")
    assert [row[:2] for row in tagged] == [row[:2] for row in plain]
    assert [row[3] for row in tagged] != [row[3] for row in plain], "the models read the tag"


def test_what_a_table_cannot_hold_is_left_out_or_refused(home: Path, tmp_path: Path) -> None:
    lines = ['{"source": "a\\tb", "target": "c"}', '{"source": "ab", "target": ["c", "d"]}']
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with pytest.raises(Problem, match=r"data.jsonl:1: a tab or a line feed"):
        table(home, tmp_path / "out.tsv", data=str(data))
    out = tmp_path / "other.tsv"
    runs = (home / "general", home / "trusted")
    said = weigh(runs, [data], out, ["corpus.on_bad_line=skip"], (), QUIET)
    assert "2 of 2 pairs" in said
    assert "left out: 1 tab or line feed" in said
    assert [row.split("\t")[:2] for row in out.read_text("utf-8").split("\n")[:-1]] == [
        ["ab", "c"],
        ["ab", "d"],
    ]


def test_it_goes_on_where_it_stopped(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    whole, broken = tmp_path / "whole.tsv", tmp_path / "broken.tsv"
    table(home, whole)
    plain, calls = Models.differences, list[int]()

    def fail(self: Models, pairs: list[module.Pair]) -> NDArray[np.float64]:
        calls.append(len(pairs))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, pairs)

    with monkeypatch.context() as patched:
        patched.setattr(Models, "differences", fail)
        with pytest.raises(KeyboardInterrupt):
            table(home, broken)
    with (tmp_path / "broken.tsv.part" / module.DIFFERENCES).open("ab") as file:
        file.write(b"half")
    with pytest.raises(Problem, match="begun with other models or data"):
        table(home, broken, "corpus.tag=<x>")
    weigh((home / "general", home / "trusted"), [home / "data.tsv"], broken, (), (), Show())
    assert "going on after pair 8" in capsys.readouterr().err
    assert broken.read_bytes() == whole.read_bytes()
    assert not broken.with_name("broken.tsv.part").exists()


def test_language_models_weigh_by_targets(home: Path, tmp_path: Path) -> None:
    made = bundle({"encoder": "none", "decoder": TRANSFORMER}, joint=True)
    for name, factor in (("general", 1.0), ("trusted", 0.5)):
        kept = {key: factor * value for key, value in checkpoint.tensors(made.model).items()}
        made.save(tmp_path / name, kept, "")
    (tmp_path / "data.tsv").write_text("ab\tcd\nba\tcd\nba\tdc\n", encoding="utf-8")
    runs, out = (tmp_path / "general", tmp_path / "trusted"), tmp_path / "out.tsv"
    weigh(runs, [tmp_path / "data.tsv"], out, (), (), QUIET)
    one, two, three = (row.split("\t")[3] for row in out.read_text("utf-8").split("\n")[:-1])
    assert one == two != three
    with pytest.raises(Problem, match=r"vocabulary|two alike"):
        weigh((home / "general", runs[1]), [home / "data.tsv"], tmp_path / "no.tsv", (), (), QUIET)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("corpus.weight=2", "will not hold it"),
        ("corpus={kind: monolingual, path: x}", "give pairs"),
        ("corpus={kind: mixture, of: [{kind: tsv, path: x}, {kind: tsv, path: y}]}", "one corpus"),
        ("weighting.share=0.5", "share"),
    ],
)
def test_what_makes_no_sense_is_refused(
    home: Path, tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(Problem, match=message):
        table(home, tmp_path / "out.tsv", change)


def test_files_are_not_overwritten_and_vocabularies_are_one(home: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match="let its name end in"):
        table(home, tmp_path / "out.txt")
    with pytest.raises(Problem, match="exists"):
        table(home, home / "data.tsv")
    made = bundle(MODELS["recurrent"], texts=(["ab"], ["cdefghi"]))
    made.save(tmp_path / "other", checkpoint.tensors(made.model), "")
    with pytest.raises(Problem, match="vocabulary"):
        weigh(
            (home / "general", tmp_path / "other"),
            [home / "data.tsv"],
            tmp_path / "out.tsv",
            (),
            (),
            QUIET,
        )
