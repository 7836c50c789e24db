"""Training data from a model: what is written, what is left out, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import MODELS, bundle

from transduce.cli import app
from transduce.data.lines import Skipped
from transduce.data.tables import TsvBlueprint
from transduce.problem import Problem
from transduce.recipe import synthesise as module
from transduce.recipe.synthesise import Request, synthesise
from transduce.recipe.use import PredictBlueprint, predict
from transduce.recipe.use import asked as load
from transduce.result import Result
from transduce.train import checkpoint
from transduce.train.progress import Show
from transduce.transducer import Transducer

QUIET = Show(quiet=True)
LINES = [f"{a}{b}{c} d" for a in "abcd" for b in "abcd" for c in "abcd"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthesise")
    made = bundle(MODELS["recurrent"], search="greedy", longest=(1.0, 3))
    made.save(folder / "model", checkpoint.tensors(made.model), "")
    (folder / "mono").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return folder


def request(home: Path, *changes: str, backwards: bool = True, tag: str = "") -> Request:
    return Request(home / "model", home / "mono", backwards, tag, changes)


def table(path: Path) -> list[list[str]]:
    return [row.split("\t") for row in path.read_text("utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("backwards", [True, False])
def test_the_table_holds_lines_and_answers(home: Path, tmp_path: Path, backwards: bool) -> None:
    out = tmp_path / "out.tsv"
    said = synthesise(request(home, backwards=backwards, tag="<BT>"), out, (), QUIET)
    rows = table(out)
    answers = dict(zip(LINES, predict(home / "model", LINES, show=QUIET), strict=True))
    lines = {row[1] if backwards else row[0].removeprefix("<BT> ") for row in rows}
    assert all(row[0].startswith("<BT> ") for row in rows)
    assert 0 < len(lines) == len(rows)
    for source, target in rows:
        bare = source.removeprefix("<BT> ")
        line, answer = (target, bare) if backwards else (bare, target)
        assert answers[line] == answer
    results = {r.source: r for r in Transducer.load(home / "model")(LINES)}
    assert lines == {line for line, r in results.items() if r.finished and r.text.strip()}
    assert said.startswith(f"{out}: {len(rows)} rows of 64 lines")
    assert len(list(TsvBlueprint(path="out.tsv").read(tmp_path, Skipped()))) == len(rows)
    assert not out.with_name("out.tsv.part").exists()


def test_what_is_left_out_is_counted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mono").write_bytes(b"abc\n\nb\tc\n  \n\xff\nbcd\nabd\ncab\n")

    def answers(lines: list[str], _: None) -> Iterator[Result]:
        found = {"abc": ("x\ty\nz", True), "bcd": ("", True), "abd": ("x", False)}
        for line in lines:
            text, finished = found.get(line, ("w", True))
            yield Result(line, text, 0.0, 0.0, finished, ())

    monkeypatch.setattr(PredictBlueprint, "answering", lambda *_, **__: answers)
    out = tmp_path / "out.tsv"
    said = synthesise(request(home)._replace(text=tmp_path / "mono"), out, (), QUIET)
    assert table(out) == [["x y z", "abc"], ["w", "cab"]]
    assert "2 rows of 8 lines" in said
    for reason in ("2 blank lines", "1 lines with a tab", "1 lines: not UTF-8", "1 blank answers"):
        assert reason in said
    assert "1 answers that the length limit cut off" in said


def test_samples_are_the_same_each_time_and_another_search_gives_others(
    home: Path, tmp_path: Path
) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        search = f"search={{kind: sample, seed: {seed}}}"
        synthesise(request(home, search), tmp_path / f"{name}.tsv", (), QUIET)
    one, two, three = (tmp_path / f"{name}.tsv" for name in ("one", "two", "three"))
    assert one.read_bytes() == two.read_bytes() != three.read_bytes()


@pytest.mark.parametrize("backwards", [True, False])
def test_a_model_of_tags_is_asked_with_one_and_the_table_has_none(
    home: Path, tmp_path: Path, backwards: bool
) -> None:
    tagged = bundle(MODELS["recurrent"], search="greedy", longest=(1.0, 3), reserved=("<2x>",))
    tagged.save(tmp_path / "model", checkpoint.tensors(tagged.model), "")
    (tmp_path / "mono").write_text("\n" + (home / "mono").read_text("utf-8"), encoding="utf-8")
    ask = Request(tmp_path / "model", tmp_path / "mono", backwards, ask="<2x>")
    said = synthesise(ask, tmp_path / "out.tsv", (), QUIET)
    assert "1 blank lines" in said
    asked = [f"<2x> {line}" for line in LINES]
    answers = {r.source: r.text for r in Transducer.load(tmp_path / "model")(asked)}
    rows = table(tmp_path / "out.tsv")
    assert rows
    for source, target in rows:
        line, answer = (target, source) if backwards else (source, target)
        assert answers[f"<2x> {line}"] == answer
    with pytest.raises(Problem, match=r"no tag '<2y>'; choose from \(<2x>\)"):
        synthesise(ask._replace(ask="<2y>"), tmp_path / "other.tsv", (), QUIET)
    with pytest.raises(Problem, match="it has none; leave it out"):
        synthesise(request(home)._replace(ask="<2x>"), tmp_path / "other.tsv", (), QUIET)


CODE = """
import sys
from pathlib import Path
from transduce.recipe import synthesise as module
from transduce.train.progress import Show
module.BLOCK = 4
home, out = Path(sys.argv[1]), Path(sys.argv[2])
module.synthesise(module.Request(home / "model", home / "mono", True), out, (), Show())
"""


def test_a_killed_process_goes_on_and_writes_the_same(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    whole, killed = tmp_path / "whole.tsv", tmp_path / "killed.tsv"
    synthesise(request(home), whole, (), QUIET)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(home), str(killed)], env={**os.environ}
    )
    state = tmp_path / "killed.tsv.part" / "state.json"
    deadline = time.monotonic() + 60
    while not state.exists() or json.loads(state.read_bytes())["lines"] < 8:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    with (tmp_path / "killed.tsv.part" / "rows.tsv").open("ab") as rows:
        rows.write(b"half a ro")
    synthesise(request(home), killed, (), Show())
    assert "going on after line " in capsys.readouterr().err
    assert killed.read_bytes() == whole.read_bytes()


def test_what_cannot_go_on_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tsv"

    def fail(*_: object, **__: object) -> Iterator[Result]:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(PredictBlueprint, "answering", lambda *_, **__: fail)
        with pytest.raises(KeyboardInterrupt):
            synthesise(request(home), out, (), QUIET)
    with pytest.raises(Problem, match="begun with another model, text, search, side or tags"):
        synthesise(request(home, tag="<BT>"), out, (), QUIET)
    synthesise(request(home), out, (), QUIET)
    with pytest.raises(Problem, match="this file exists"):
        synthesise(request(home), out, (), QUIET)
    with pytest.raises(Problem, match=r"end in \.tsv"):
        synthesise(request(home), tmp_path / "out", (), QUIET)
    with pytest.raises(Problem, match="own: a text has lines that are left out"):
        synthesise(request(home, "own=each.jsonl"), tmp_path / "o.tsv", (), QUIET)
    with pytest.raises(Problem, match="confidence: the table has no column for it"):
        synthesise(request(home, "confidence=true"), tmp_path / "o.tsv", (), QUIET)
    with pytest.raises(Problem, match="precision: what gains is measured each time"):
        synthesise(request(home, "precision=auto"), tmp_path / "o.tsv", (), QUIET)
    with pytest.raises(Problem, match="there is no such file"):
        synthesise(request(home)._replace(text=tmp_path / "x"), tmp_path / "o.tsv", (), QUIET)


def test_long_lines_are_left_out_unless_they_are_cut(tmp_path: Path) -> None:
    short = MODELS["transformer"]["encoder"] | {"positions": {"kind": "learned", "longest": 8}}
    made = bundle({"encoder": short, "decoder": MODELS["transformer"]["decoder"]}, search="greedy")
    made.save(tmp_path / "model", checkpoint.tensors(made.model), "")
    (tmp_path / "mono").write_text("dab cab bcd\n", encoding="utf-8")
    ways = {}
    for name, changes in (("whole", []), ("cut", ["split=sentences"])):
        asked = request(tmp_path, "length={least: 2}", *changes)
        ways[name] = synthesise(asked, tmp_path / f"{name}.tsv", (), QUIET)
    assert "longer than the model has positions for" in ways["whole"]
    assert "longer than" not in ways["cut"]


def test_each_model_that_has_a_say_is_remembered(home: Path, tmp_path: Path) -> None:
    other = bundle(MODELS["recurrent"])
    other.save(tmp_path / "other", checkpoint.tensors(other.model), "")
    say = {
        "ensemble": f"ensemble.runs=[{tmp_path / 'other'}]",
        "rerank": f"rerank={{second: [{{run: {tmp_path / 'other'}}}]}}",
    }

    def identity(*changes: str) -> str:
        asked = request(home, *changes)
        return module._identity(asked, load(asked.run, changes, ())[1])

    before = {name: identity(change) for name, change in say.items()}
    alone = identity()
    other.model.decoder.embedding.weight.data[4] += 1
    other.save(tmp_path / "other", checkpoint.tensors(other.model), "")
    assert identity() == alone
    for name, change in say.items():
        assert identity(change) != before[name]


@pytest.mark.parametrize("split", [(), ("split=sentences",)])
def test_models_that_choose_are_loaded_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: tuple[str, ...]
) -> None:
    loaded, load_one = list[str](), Transducer.load

    def noting(folder: str, *rest: Any, **named: Any) -> Transducer:
        loaded.append(str(folder))
        return load_one(folder, *rest, **named)

    monkeypatch.setattr(Transducer, "load", noting)
    monkeypatch.setattr(module, "BLOCK", 16)
    rerank = f"rerank={{candidates: 2, second: [{{run: {home / 'model'}}}]}}"
    synthesise(request(home, "search.kind=beam", rerank, *split), tmp_path / "o.tsv", (), QUIET)
    assert len(loaded) == 2
    assert table(tmp_path / "o.tsv")


def test_the_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["synthesise", str(home / "model"), str(home / "mono"), str(tmp_path / "o.tsv")]
    with pytest.raises(Problem, match="choose source or target"):
        app([*given, "--side", "left"], standalone_mode=False)
    app([*given, "--side", "source", "--tag", "<BT>", "search.kind=greedy"], standalone_mode=False)
    assert "rows of 64 lines" in capsys.readouterr().out
    assert table(tmp_path / "o.tsv")[0][0].startswith("<BT> ")
