"""What is done with a saved model, from lines to lines."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import tiny

from transduce.cli import main
from transduce.problem import Problem
from transduce.recipe.score import score
from transduce.recipe.use import predict
from transduce.search import Exact
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show
from transduce.transducer import Transducer


@pytest.fixture(scope="module", params=["recurrent", "transformer"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.bundle(tiny.MODELS[request.param])
    folder = tmp_path_factory.mktemp("run") / "model"
    made.save(folder, tensors(made.model), "a card")
    return folder


def test_answers_that_are_not_proven_are_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["abc", "", "dab"]
    list(predict(run, texts, ["search.kind=exact", "search.nodes=1"], show=Show()))
    said = capsys.readouterr().err
    assert "warning: 2 answers are not proven to be the best: lines 1, 3" in said
    list(predict(run, texts, ["search.kind=exact"], show=Show()))
    assert "proven" not in capsys.readouterr().err


def test_runs_answer_together(run: Path) -> None:
    texts = ["abc", "dab"]
    alone = list(predict(run, texts, scores=True, show=Show()))
    twins = list(predict(run, texts, [f"ensemble.runs=[{run}]"], scores=True, show=Show()))
    assert twins == alone
    with pytest.raises(Problem, match="this key is missing"):
        list(predict(run, texts, ["ensemble.average=probabilities"], show=Show()))
    with pytest.raises(Problem, match="no such folder"):
        list(predict(run, texts, ["ensemble.runs=[nowhere]"], show=Show()))


def test_the_score_of_an_answer_is_the_score_of_the_search(run: Path) -> None:
    answers = [
        answer
        for best in Transducer.load(run)([*tiny.SOURCES, "bb", "ca"], Exact(), alternatives=4)
        for answer in (best, *best.alternatives)
        if answer.finished
    ]
    assert len(answers) > 5
    lines = [f"{answer.source}\t{answer.text}" for answer in answers]
    for answer, row, line in zip(
        answers, score(run, lines, "x"), score(run, lines, "x", jsonl=True), strict=True
    ):
        total, tokens = row.split("\t")
        assert float(total) == pytest.approx(answer.log_prob, abs=1e-4)
        wanted = [token.log_prob for token in answer.tokens]
        assert [float(token) for token in tokens.split(" ")] == pytest.approx(wanted, abs=1e-4)
        known = json.loads(line)
        assert known["log_prob"] == pytest.approx(answer.log_prob, abs=1e-4)
        assert [token["piece"] for token in known["tokens"]] == [x.piece for x in answer.tokens]
    wanted = totals(score(run, lines, "x"))
    assert totals(score(run, lines, "x", ahead=3)) == pytest.approx(wanted, abs=1e-4)


def totals(rows: Iterable[str]) -> list[float]:
    return [float(row.split("\t")[0]) for row in rows]


def test_scores_of_an_ensemble(run: Path) -> None:
    twins = score(run, ["abc\tcba"], "x", [f"ensemble.runs=[{run}]"])
    assert totals(twins) == pytest.approx(totals(score(run, ["abc\tcba"], "x")), abs=1e-4)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("abc", "1 columns; give two"),
        ("abc\tcba\tx", "3 columns; give two"),
        (" \tcba", "the source is blank"),
    ],
)
def test_a_line_that_is_no_pair_is_named(run: Path, line: str, what: str) -> None:
    rows = score(run, ["abc\tcba", line], "pairs.tsv", ahead=1)
    next(rows)
    with pytest.raises(Problem, match=rf"^pairs\.tsv:2: {what}"):
        next(rows)


def test_a_target_that_is_too_long_is_named(tmp_path: Path) -> None:
    short = tiny.TRANSFORMER | {"positions": {"kind": "learned", "longest": 5}}
    made = tiny.bundle({"encoder": tiny.RECURRENT, "decoder": short})
    made.save(tmp_path / "model", tensors(made.model), "a card")
    with pytest.raises(Problem, match=r"^pairs\.tsv:2: the target has 7 symbols"):
        list(score(tmp_path, ["abc\tcba", "abc\tabcabc"], "pairs.tsv"))


def test_the_command_scores_files_and_streams(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    def command(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["transduce", "score", str(run), *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsysbinary.readouterr()
        return int(ended.value.code or 0), out.decode(), err.decode()

    pairs = "abc\tcba\nä\tä\n"
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    wanted = "".join(f"{row}\n" for row in score(run, ["abc\tcba", "ä\tä"], "x"))
    assert command(str(tmp_path / "pairs.tsv")) == (0, wanted, "")
    assert command(stdin=pairs.encode()) == (0, wanted, "")
    code, out, _ = command("--jsonl", "-", stdin=pairs.encode())
    assert (code, len(out.strip().split("\n"))) == (0, 2)
    assert "ä" in out
    code, _, err = command(stdin=b"abc\n")
    assert (code, err) == (
        2,
        "stdin:1: 1 columns; give two, the source and the target, with a tab between them\n",
    )
    assert command("a", "b")[0] == 2
