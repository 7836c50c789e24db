"""Few pairs, many directions, a small model: the commands on the page lead to their tables."""

from __future__ import annotations

import gzip
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from transduce.blueprint import read
from transduce.cli import app
from transduce.experiment import Experiment
from transduce.models.build import build

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("low_resource", "many_to_many", "student")
EXPERIMENTS: Final = [
    path for folder in FOLDERS for path in sorted((ROOT / "recipes" / folder).glob("*.yaml"))
]
QUICK: Final = (
    "train.batch.tokens=200",
    "train.precision=fp32",
    "train.optimiser.schedule.warmup=10",
    "validation.examples=2",
    "length.most=8",
)
TEACHERS: Final = ("reverse", "multi30k")  # they have to learn when an answer is over
TINY: Final = tuple(
    f"model.{side}.{name}={size}"
    for side in ("encoder", "decoder")
    for name, size in (("width", 16), ("inner", 16), ("layers", 1), ("heads", 2), ("dropout", 0))
)
COLOURS: Final = ("red rot", "blue blau", "green grün", "white weiß")


def commands(folder: str) -> list[list[str]]:
    """Return those that docs/training.md names for a folder of recipes."""
    page = (ROOT / "docs" / "training.md").read_text("utf-8")
    block = re.search(rf"\(`recipes/{folder}`\).*?```sh\n(.*?)```", page, re.DOTALL)
    assert block
    return [shlex.split(line) for line in block[1].replace("\\\n", "").split("\n") if line]


def run(command: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as the command says, with a tiny model and few updates where it trains one."""
    command = [re.sub("^recipes/", f"{ROOT}/recipes/", word) for word in command]
    if command[0] == "python":
        monkeypatch.setattr(sys, "argv", command[1:])
        runpy.run_path(command[1], run_name="__main__")
        return
    arguments = command[1:]
    if arguments[0] == "train":
        path = Path(arguments[1])
        text = path.read_text("utf-8")
        updates = 60 if path.stem in TEACHERS else 2
        size = ["text.source.tokens.size=400"] * ("tokens: {kind: sentencepiece" in text)
        arguments += [*QUICK, *TINY, *size, "train.optimiser.rate=0.02"]
        arguments += [f"train.max_steps={updates}", f"validation.every={updates}"]
    assert not app(arguments, standalone_mode=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def captions(count: int) -> dict[str, list[str]]:
    """Return lines of English and of German that belong together."""
    colours = [COLOURS[place % 4].split() for place in range(count)]
    return {
        "en": [f"{en} {place}" for place, (en, _) in enumerate(colours)],
        "de": [f"{de} {place}" for place, (_, de) in enumerate(colours)],
    }


def table(printed: str) -> list[list[str]]:
    """Return the cells of the table that was printed last."""
    rows = [line for line in printed.split("\n") if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_few_pairs(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("train", 60), ("val", 4), ("test_2016_flickr", 5)):
        for side, lines in captions(count).items():
            write(home / "PAIRS" / f"{name}.{side}.gz", lines)
    for side, lines in captions(50).items():
        write(home / "MONO" / f"train.{side}.gz", lines)
    first, *others = commands("low_resource")
    run([*first, "--few", "20", "--back", "10"], monkeypatch)
    pairs = [
        gzip.decompress((home / f"TARGET/pairs.{side}.gz").read_bytes()) for side in ("en", "de")
    ]
    for english, german in zip(*(text.decode().split("\n")[:-1] for text in pairs), strict=True):
        assert english.split()[-1] == german.split()[-1]  # they are still each other's
    for command in others:
        run(command, monkeypatch)
    made = (home / "TARGET" / "back.tsv").read_text("utf-8").split("\n")[:-1]
    drawn = gzip.decompress((home / "TARGET" / "back.de.gz").read_bytes()).decode().split("\n")
    assert {line.split("\t")[1] for line in made} <= set(drawn)
    head, _, *rows = table(capsys.readouterr().out)
    assert head[:6] == ["run", "parameters", "updates", "minutes", "BLEU", "against scratch"]
    assert [row[0] for row in rows] == ["scratch", "finetune", "back_translation"]
    assert [bool(row[5]) for row in rows] == [False, True, True]
    start = [*others[-1][:4], "TARGET/runs/scratch"]
    for run_, why in (("reverse", "its test set .* not those of"), ("pretrain", "no test set")):
        with pytest.raises(SystemExit, match=f"{run_}: .*{why}"):
            run([*start, f"TARGET/runs/{run_}"], monkeypatch)


def test_many_to_many(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verse = "V.{0}\tAnd there were {0} lights.\t有{0}光。\tEta {0} argui.\tܢܘܗܪܐ {0}"
    for split, count in (("train", 30), ("dev", 3), ("test", 2)):
        verses = [verse.format(place) for place in range(count)]
        names = "verse\teng\tzho\teus\tsyr"
        empty = ["V.x\tAnd.\t又。\t\tܘ"] * (split != "dev")
        write(home / "FOLDER" / "bible_nt_multi" / f"{split}.tsv.gz", [names, *verses, *empty])
        old = ["\t".join(row.split("\t")[:3]) for row in verses]
        write(home / "FOLDER" / "bible_en_zh" / f"{split}.tsv.gz", old * 2)
    for command in commands("many_to_many"):
        run(command, monkeypatch)
    head, _, *rows = table(capsys.readouterr().out)
    assert head[:4] == ["run", "direction", "learned", "verses"]
    assert [row[0] for row in rows] == ["many"] * 12 + ["eng-eus"]
    assert len({row[1] for row in rows[:12]}) == 12
    assert [row[2] for row in rows] == ["yes"] * 6 + ["no"] * 6 + ["yes"]
    assert all((row[3] == "2") == ("eus" in row[1]) for row in rows)  # where a cell is empty


def test_teacher_and_student(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("train", 40), ("val", 4), ("test_2016_flickr", 5)):
        for side, lines in captions(count).items():
            write(home / "FOLDER" / f"{name}.lc.norm.tok.{side}.gz", lines)
    for command in commands("student"):
        run(command, monkeypatch)
    assert (home / "FOLDER" / "taught.tsv").exists()
    vocabularies = {path.read_bytes() for path in (home / "runs").glob("*/model/*.model")}
    assert len(vocabularies) == 1
    head, _, *rows = table(capsys.readouterr().out)
    assert head[-2:] == ["tokens per CPU-s", "ms a line alone"]
    assert [row[0] for row in rows] == ["multi30k", "plain", "student"]
    assert all(float(row[-1]) > 0 for row in rows)


def conditions(name: str, *keys: str) -> dict[str, Any]:
    """Return an experiment without its dropout and without what is named."""
    found = read(ROOT / "recipes" / f"{name}.yaml", Experiment).model_dump()
    for side in ("encoder", "decoder"):
        del found["model"][side]["dropout"]
    return {key: value for key, value in found.items() if key not in keys}


def test_what_is_compared_differs_in_what_it_is_about() -> None:
    scratch, *others = (
        conditions(f"low_resource/{name}", "data", "start", "text", "train")
        for name in ("scratch", "finetune", "reverse", "back_translation")
    )
    assert all(other == scratch for other in others)
    assert conditions("low_resource/pretrain")["model"] == scratch["model"]
    plain, student = (conditions(f"student/{name}", "data") for name in ("plain", "student"))
    assert plain == student
    many, one = (conditions(f"many_to_many/{name}") for name in ("many", "eng-eus"))
    assert many["model"] == one["model"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_recipe_says_where_its_data_comes_from_and_how_it_is_run(path: Path) -> None:
    comments = path.read_text("utf-8").partition("seed:")[0]
    assert "github.com/" in comments
    assert re.search("research|CC0", comments)
    told = " ".join(comments.replace("\\\n", "").replace("\n#", "\n").split())
    (command,) = (
        command for command in commands(path.parent.name) if str(path.relative_to(ROOT)) in command
    )
    assert " ".join(command) in told
    build(read(path, Experiment).model, {"source": 50, "target": 50})
