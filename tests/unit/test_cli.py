"""The command line as a newcomer uses it: from data to predictions, and mistakes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from transduce.cli import main

SCRIPT = str(Path(sys.executable).with_name("transduce"))
TINY = (
    "train.max_steps=6",
    "train.threads=1",
    "validation.every=3",
    "model.encoder.embedding=8",
    "model.encoder.width=8",
    "model.decoder.embedding=8",
    "model.decoder.width=8",
)


def process(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run the command in a process of its own; return what it prints."""
    environment = {**os.environ, "TRANSDUCE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [SCRIPT, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        env=environment,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


class Answer(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def transduce(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Command:
    """Run the command here, which saves importing torch each time."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("TRANSDUCE_CACHE", str(home / "cache"))

    def run(arguments: str, stdin: bytes = b"") -> Answer:
        monkeypatch.setattr(sys, "argv", ["transduce", *arguments.split()])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsysbinary.readouterr()
        return Answer(int(ended.value.code or 0), out.decode(), err.decode())

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where somebody went from data to a model."""
    folder = tmp_path_factory.mktemp("home")
    words = [f"{a}{b}{c}" for a in "abcd" for b in "efgh" for c in "ijkl"]
    table = "".join(f"{word}\t{word[::-1]}\n" for word in words)
    (folder / "pairs.tsv").write_text(table, encoding="utf-8")
    (folder / "test.tsv").write_text("aei\tiea\nbfj\tjfb\n", encoding="utf-8")
    said = process(folder, "init", "pairs.tsv", "-o", "my.yaml")
    assert "next: transduce check my.yaml" in said
    assert "nothing stands in the way" in process(folder, "check", "my.yaml", *TINY)
    process(folder, "train", "my.yaml", *TINY)
    return folder


LINES = b"aei\n\nbfj\r\n   \ndhl"


def test_help_and_version_are_quick_because_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = """
import sys
from transduce.cli import app
try:
    app(sys.argv[1:])
finally:
    heavy = {"torch", "numpy", "pydantic", "ruamel.yaml", "rich", "sacrebleu"} & set(sys.modules)
    assert not heavy, heavy
"""
    for argument in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, check=True
        )
        assert b"Commands:" in done.stdout or done.stdout.startswith(b"transduce ")
    assert "predict" in process(tmp_path, "-h")


def test_a_run_leaves_a_model_and_a_report(home: Path, transduce: Command) -> None:
    assert (home / "runs/my/model/weights.safetensors").is_file()
    assert (home / "runs/my/report.html").is_file()
    assert "folders are as they were written" in transduce("verify runs/my").out


def test_the_data_may_be_in_another_folder(home: Path, transduce: Command, tmp_path: Path) -> None:
    settings = shutil.copy(home / "my.yaml", tmp_path)
    changes = " ".join(TINY)
    assert "no such file" in transduce(f"check {settings} {changes}").err
    found = transduce(f"check {settings} --data {home} {changes}")
    assert "nothing stands in the way" in found.out
    trained = transduce(f"train {settings} --data {home} --run {tmp_path}/run {changes}")
    assert trained.code == 0
    assert (tmp_path / "run/model/weights.safetensors").is_file()


def test_every_line_is_answered_by_a_line(home: Path, transduce: Command) -> None:
    answers = process(home, "predict", "runs/my", stdin=LINES)
    assert answers.count("\n") == 5
    assert [bool(line.strip()) for line in answers.split("\n")[1:4:2]] == [False, False]
    (home / "input.txt").write_bytes(LINES)
    assert transduce("predict runs/my input.txt").out == answers
    assert transduce("predict runs/my/model - --batch 1", LINES).out == answers
    assert transduce("predict runs/my").out == ""


def test_search_can_be_changed(transduce: Command) -> None:
    greedy = transduce("predict runs/my --greedy", LINES).out
    assert transduce("predict runs/my search=greedy", LINES).out == greedy
    beam = transduce("predict runs/my --beam 3 --scores", LINES).out
    assert transduce("predict runs/my search.width=3 --scores", LINES).out == beam
    samples = transduce("predict runs/my search=sample search.samples=3", LINES).out
    assert transduce("predict runs/my search.kind=sample search.samples=3", LINES).out == samples
    rows = [line.split("\t") for line in beam.split("\n")[:-1]]
    assert all(float(score) <= 0 for score, _ in rows)


def test_answers_are_shown_as_they_grow(transduce: Command) -> None:
    whole = transduce("predict runs/my --greedy", LINES)
    assert transduce("stream runs/my --greedy", LINES) == whole
    assert transduce("stream runs/my input.txt search=greedy") == whole


def test_the_length_of_answers_can_be_changed(transduce: Command) -> None:
    long = transduce("predict runs/my length.least=9 length.most=9", LINES)
    assert long.out != transduce("predict runs/my", LINES).out
    short = transduce("predict runs/my length.most=1", LINES)
    assert "answers reached the length limit" in short.err


def test_several_answers_carry_the_number_of_their_line(transduce: Command) -> None:
    rows = transduce("predict runs/my --nbest 3", LINES).out.split("\n")[:-1]
    numbers = [row.split("\t")[0] for row in rows]
    assert numbers == ["1"] * 3 + ["2"] + ["3"] * 3 + ["4"] + ["5"] * 3
    first = [row.split("\t")[1] for row in (rows[0], rows[3], rows[4], rows[7], rows[8])]
    assert first == transduce("predict runs/my", LINES).out.split("\n")[:-1]


def test_one_answer_is_given_even_if_the_model_finds_several(transduce: Command) -> None:
    several = transduce("predict runs/my search.n_best=3", LINES)
    assert several == transduce("predict runs/my", LINES)


def test_evaluation_uses_the_metrics_of_the_run_or_others(transduce: Command) -> None:
    scores = transduce("evaluate runs/my --data test.tsv").out
    assert "Exact match" in scores
    assert scores.count("\n") == 3  # perplexity is always there
    other = transduce("evaluate runs/my --data test.tsv metrics=[chrf] --greedy").out
    assert "chrF" in other
    assert other.count("\n") == 2
    (source, target) = ("test.source", "test.target")
    Path(source).write_text("aei\nbfj\n", encoding="utf-8")
    Path(target).write_text("iea\njfb\n", encoding="utf-8")
    assert transduce(f"evaluate runs/my --data {source} --data {target}").out == scores


def test_schema_is_json(transduce: Command) -> None:
    assert "max_steps" in json.dumps(json.loads(transduce("schema").out))


def test_training_again_finds_the_run_finished_and_refuses_another(transduce: Command) -> None:
    assert transduce(f"train my.yaml {' '.join(TINY)}").code == 0
    answer = transduce(f"train my.yaml {' '.join(TINY)} seed=2")
    assert answer.code == 2
    assert "begun with other settings (seed" in answer.err
    Path("runs/my/experiment.yaml").unlink()
    answer = transduce(f"train my.yaml {' '.join(TINY)} seed=2")
    assert answer.code == 2
    assert "its experiment.yaml, which says what they are of, is gone" in answer.err


@pytest.mark.parametrize("verb", ["verify", "predict"])
def test_damage_is_found(home: Path, transduce: Command, verb: str) -> None:
    shutil.copytree(home / "runs/my/model", home / verb)
    weights = home / verb / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    answer = transduce(f"{verb} {verb}")
    assert answer.code == 2
    assert answer.err.startswith(f"{verb}/weights.safetensors: the file is damaged")


def test_a_reader_that_leaves_early_is_no_error(home: Path) -> None:
    command = f"yes abc | head -n 5000 | '{SCRIPT}' predict runs/my --greedy --batch 8 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=home, capture_output=True, check=True, timeout=120
    )
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_an_interrupted_command_ends_with_130(home: Path) -> None:
    process = subprocess.Popen(
        [SCRIPT, "predict", "runs/my", "--batch", "1"],
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"aei\n")
    process.stdin.flush()
    process.stdout.readline()  # it waits for the next line now
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint == b""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("trian my.yaml", "No such command 'trian'. Did you mean 'train'?"),
        ("train", "Missing argument 'EXPERIMENT.yaml'"),
        ("train my.yml", "my.yml: no such file; did you mean 'my.yaml'?"),
        ("train my.yaml --steps 3", "No such option: --steps"),
        ("train my.yaml train.max_step=3", "=3: no such key; did you mean 'max_steps'?"),
        ("train my.yaml max_steps=3", "max_steps=3: no such key; it belongs in train"),
        ("train my.yaml seed", "seed: expected key=value, such as train.max_steps=1000"),
        ("train pairs.tsv", "pairs.tsv: no configuration (.yaml); for data, first: transduce init"),
        ("train moved.yaml", "there is no such file"),
        ("init pairs.tvs -o new.yaml", "pairs.tvs: no such file"),
        ("init pairs.tsv -o my.yaml", "my.yaml: this file exists"),
        ("init pairs.tsv", "Missing option '--out'"),
        ("init my.yaml -o new.yaml", "text files come in pairs"),
        ("predict runs/mine", "runs/mine: no such folder; give the folder of a run or of a model"),
        ("predict runs", "runs: holds no trained model yet"),
        ("predict runs/my nothing.txt", "nothing.txt: there is no such file"),
        ("predict runs/my a.txt b.txt", "b.txt: one file at a time"),
        ("predict runs/my latin.txt", "latin.txt:2: byte 4 of the line"),
        ("stream runs/my pairs.tsv search=beam", "search.kind: beam: it decides on whole answers"),
        ("predict runs/my --beam 0", "Invalid value for '--beam'"),
        ("predict runs/my --beam 3 --greedy", "--beam, --greedy: choose one of them"),
        ("predict runs/my pairs.tsv --greedy --nbest 3", "for alternatives use beam search"),
        ("predict runs/my pairs.tsv length.least=3 length.most=2", "above most 2"),
        ("predict runs/my pairs.tsv search=baem", "no such choice 'baem'; did you mean 'beam'?"),
        ("evaluate runs/my", "Missing option '--data'"),
        ("evaluate runs/my --data pairs.tsv metrics=[belu]", "did you mean 'bleu'?"),
        ("verify pairs.tsv", "pairs.tsv: there is no model here"),
        ("quickstart --task translate", "no such task 'translate'; did you mean 'translation'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_in_plain_words(
    home: Path, transduce: Command, arguments: str, says: str
) -> None:
    (home / "latin.txt").write_bytes(b"a\ncaf\xe9\n")
    text = (home / "my.yaml").read_text(encoding="utf-8").replace("my.train.jsonl", "moved.jsonl")
    (home / "moved.yaml").write_text(text, encoding="utf-8")
    answer = transduce(arguments)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert answer.err.count("\n") <= 4


def test_bytes_that_are_no_text_are_refused_with_their_line(transduce: Command) -> None:
    answer = transduce("predict runs/my", b"aei\ncaf\xe9\n")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "stdin:2: not UTF-8; convert it, for instance by iconv\n"
