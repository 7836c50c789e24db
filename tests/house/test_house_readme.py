"""What the pages show exists: commands and their options, settings, names, files."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import typer.core
import typer.main
from typer.exceptions import TyperException

from house import ROOT, SOURCE
from transduce.blueprint import override, parse
from transduce.cli import app
from transduce.experiment import Experiment
from transduce.problem import Problem

PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
EXPERIMENT: Final = "data: {train: {kind: tsv, path: a}, dev: {kind: tsv, path: a}}\n"
GOLDEN: Final = ROOT / "tests" / "golden" / "v0.1" / "recurrent"


class Block(NamedTuple):
    """A block of code on a page."""

    place: str
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(f"{page.relative_to(ROOT)}:{line}", found[1], found[2])


EVERY: Final = [block for page in PAGES for block in blocks(page)]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield every command of a shell block or between backquotes, as a shell would cut it."""
    for block in EVERY:
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").split("\n"):
                yield from ((block.place, words) for words in simple(line))
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for shown in re.findall(r"`((?:transduce|make) [^`]+)`", prose):
            yield from ((page.name, words) for words in simple(shown))


def simple(line: str) -> Iterator[list[str]]:
    """Cut a line of shell into commands, and leave out comments and redirections."""
    words = [*shlex.shlex(line, posix=True, punctuation_chars=True), ";"]
    command: list[str] = []
    for word in words:
        if set(word) <= set(";|&"):
            if command:
                yield list(takewhile(lambda part: part not in ("<", ">"), command))
            command = []
        else:
            command.append(word)


COMMANDS: Final = list(commands())


def test_the_commands_of_the_pages_are_found() -> None:
    verbs = {words[1] for _, words in COMMANDS if words[0] == "transduce"}
    assert {"quickstart", "init", "check", "train", "predict", "evaluate", "verify"} <= verbs
    assert {words[0] for _, words in COMMANDS} <= {
        "transduce",
        "make",
        "pip",
        "echo",
        "cat",
        "cut",
        "paste",
        "python",
    }
    scripts = {words[1] for _, words in COMMANDS if words[0] == "python"}
    assert [script for script in scripts if not (ROOT / script).exists()] == []


def understand(words: list[str]) -> None:
    """Read a command as its program would, without doing it."""
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    if program == "transduce" and not arguments[0].startswith("-"):
        group = typer.main.get_command(app)
        assert isinstance(group, typer.core.TyperGroup)
        verb, *rest = arguments
        assert verb in group.commands, f"there is no transduce {verb}"
        given = group.commands[verb].make_context(verb, rest).params
        if verb in ("train", "check", "quickstart"):
            override(parse(EXPERIMENT, Experiment), given["changes"] or [])


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=lambda part: str(part)[:60])
def test_a_command_on_a_page_is_understood(place: str, words: list[str]) -> None:
    assert place
    understand(words)


@pytest.mark.parametrize(
    "line",
    [
        "make cake",
        "transduce trian my.yaml",
        "transduce train my.yaml --steps 3",
        "transduce train my.yaml train.max_step=3",
        "transduce init pairs.tsv",
    ],
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    (words,) = simple(line)
    with pytest.raises((AssertionError, Problem, TyperException)):
        understand(words)


def test_experiments_on_the_pages_are_experiments() -> None:
    shown = [block for block in EVERY if block.language == "yaml"]
    assert shown
    for block in shown:
        if "parts:" in block.text:
            continue  # tests/unit/test_own.py trains it with the parts that its page shows
        parse(block.text, Experiment, block.place)


def test_names_on_the_pages_can_be_imported() -> None:
    for block in EVERY:
        if block.language != "python":
            continue
        known: dict[str, object] = {}
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom):
                exec(ast.unparse(node), known)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = known.get(node.value.id)
                assert owner is None or hasattr(owner, node.attr), f"{block.place}: {node.attr}"


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(GOLDEN, tmp_path / "runs" / "quickstart" / "model")
    monkeypatch.chdir(tmp_path)
    (code,) = (block.text for block in blocks(ROOT / "README.md") if block.language == "python")
    exec(code, {})
    assert re.search(r"Token\(.*\(\d+, \d+\)\n$", capsys.readouterr().out, re.DOTALL)


def local(page: Path) -> Iterator[str]:
    """Yield the files that a page links to, and those of the repository that it names."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target.partition("#")[0] or page.name
    roots = "|".join(("src", "tests", "docs", "tools", "benchmarks", r"\.ci"))
    for named in re.findall(rf"`((?:{roots})/[\w./-]+)`", text):
        yield str(ROOT / named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_exist(page: Path) -> None:
    missing = [target for target in local(page) if not (page.parent / target).exists()]
    assert not missing


def test_the_parts_that_the_readme_names_exist() -> None:
    (tree,) = (b.text for b in blocks(ROOT / "README.md") if b.text.startswith("src/transduce/"))
    named = re.findall(r"\w+(?:/(?= )|\.py)", tree.partition("\n")[2])
    assert len(named) > 10
    assert [name for name in named if not (SOURCE / name).exists()] == []


def test_the_design_says_what_stands_and_what_does_not() -> None:
    (tree,) = (
        b.text for b in blocks(ROOT / "docs" / "design.md") if b.text.startswith("src/transduce/")
    )
    rows = re.findall(r"^([+-]) (\S+)", tree, re.MULTILINE)
    wrong = [name for mark, name in rows if (SOURCE / name).exists() != (mark == "+")]
    assert not wrong
    assert {name for _, name in rows} >= {
        f"{path.name}/" if path.is_dir() else path.name
        for path in SOURCE.iterdir()
        if not path.name.startswith(("_", ".")) and path.name != "py.typed"
    }
