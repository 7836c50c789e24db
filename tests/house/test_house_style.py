"""The rules of the house that a reader feels and a linter does not know."""

from __future__ import annotations

import ast
import importlib
import io
import re
import subprocess
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

import pytest

from house import ROOT, Function, Module, functions, imported, modules, parameters

LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8

Finding = tuple[ast.stmt | ast.expr | ast.arg, str]
Check = Callable[[Module], Iterator[Finding]]


def long_functions(module: Module) -> Iterator[Finding]:
    for function in functions(module):
        size = (function.end_lineno or function.lineno) - function.lineno + 1
        if size > FUNCTION_LINES:
            yield function, f"{function.name} has {size} lines"


def many_parameters(module: Module) -> Iterator[Finding]:
    for function in functions(module):
        if len(parameters(function)) > PARAMETERS:
            yield function, f"{function.name} has {len(parameters(function))} parameters"


def missing_annotations(module: Module) -> Iterator[Finding]:
    for function in functions(module):
        if function.returns is None:
            yield function, f"{function.name} does not say what it returns"
        for parameter in parameters(function):
            if parameter.annotation is None:
                yield parameter, f"{function.name} does not say what {parameter.arg} is"


def tunnels(module: Module) -> Iterator[Finding]:
    for function in functions(module):
        if function.args.kwarg:
            yield function, f"{function.name} takes **{function.args.kwarg.arg}; name what it takes"


def missing_docstrings(module: Module) -> Iterator[Finding]:
    """A method may leave it to the method it overrides, as ``help`` does."""
    if not module.tree.body:
        return  # an empty __init__.py
    if ast.get_docstring(module.tree) is None:
        yield module.tree.body[0], "the file does not say what it is for"
    waiting: list[ast.Module | ast.ClassDef] = [module.tree]
    while waiting:
        owner = waiting.pop()
        for node in owner.body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                if ast.get_docstring(node) is None and not documented_above(owner, node.name):
                    yield node, f"{node.name} has no docstring"
                if isinstance(node, ast.ClassDef):
                    waiting.append(node)


def documented_above(owner: ast.Module | ast.ClassDef, name: str) -> bool:
    """Whether a class of the package above ``owner`` documents its method ``name``."""
    if isinstance(owner, ast.Module):
        return False
    bases = (ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in owner.bases)
    for base in (classes()[base] for base in bases if base in classes()):
        for node in base.body:
            if isinstance(node, Function) and node.name == name and ast.get_docstring(node):
                return True
        if documented_above(base, name):
            return True
    return False


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Return every class of the package by its name."""
    nodes = (node for module in modules() for node in ast.walk(module.tree))
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def dangerous(module: Module) -> Iterator[Finding]:
    """Loading must never be able to run code, so nothing that can is used at all."""
    modules_that_run_code = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
    for statement, name in imported(module, module.tree):
        if name.split(".")[0] in modules_that_run_code:
            yield statement, "what it reads can run code"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"eval", "exec", "compile", "__import__", "torch.load", "torch.save"}:
                yield node, f"{called} can run code that was in a file"
            if called.endswith("import_module") and module.name != "transduce.problem":
                yield node, "only transduce.problem.optional imports by name"
            if called.endswith("exec_module") and module.name != "transduce.blueprint.own":
                yield node, "only transduce.blueprint.own runs files, which a person named"
            if any(word.arg in {"allow_pickle", "shell"} for word in node.keywords):
                yield node, f"{called} can run code"


def printing(module: Module) -> Iterator[Finding]:
    """People are spoken to in two places alone."""
    speaks = re.search(r"\b(cli|progress)\b", module.name)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield node, "print"
    for statement, name in imported(module, module.tree):
        if name.split(".")[0] == "rich" and not speaks:
            yield statement, "only the command line and the progress display use rich"


def global_state(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield node, f"global {', '.join(node.names)}"


def cut_at_odd_lines(module: Module) -> Iterator[Finding]:
    r"""Text has lines at "\n" alone; ``splitlines`` cuts at eight more characters."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr == "splitlines":
            yield node, "splitlines"


CHECKS: Final[tuple[Check, ...]] = (
    long_functions,
    many_parameters,
    missing_annotations,
    tunnels,
    missing_docstrings,
    dangerous,
    printing,
    global_state,
    cut_at_odd_lines,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nowhere_in_the_package(check: Check) -> None:
    found = [f"{module.at(node)}: {what}" for module in modules() for node, what in check(module)]
    assert not found, "\n" + "\n".join(found)


BROKEN: Final[dict[Check, str]] = {
    long_functions: '"""D."""\ndef f() -> None:\n' + "    x = 1\n" * 60,
    many_parameters: '"""D."""\ndef _f(a, b, c, d, e, f, g, h, i): ...',
    missing_annotations: '"""D."""\nclass _C:\n    def f(self, x) -> None: ...',
    tunnels: '"""D."""\ndef _f(**options: int) -> None: ...',
    missing_docstrings: '"""D."""\nclass C:\n    """D."""\n    def f(self) -> None: ...',
    dangerous: "from pickle import load",
    printing: "def f(): print(1)",
    global_state: "def f():\n    global x",
    cut_at_odd_lines: 'lines = "".splitlines()',
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_rule_can_be_broken(check: Check) -> None:
    text = BROKEN[check]
    module = Module(ROOT / "src" / "transduce" / "broken.py", text, ast.parse(text))
    assert list(check(module))


def tracked(*patterns: str) -> list[str]:
    """Return the files under version control (those not yet added too)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    try:
        out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs a git checkout")
    return [name for name in out.split("\n") if name and (ROOT / name).is_file()]


def test_files_are_short() -> None:
    for name in tracked("*.py"):
        lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
        assert lines <= LINES, f"{name} has {lines} lines"


def test_nothing_is_left_to_do() -> None:
    """Comments that promise work are for the list of issues."""
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
    for name in tracked("*.py"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            comment = token.type in (tokenize.COMMENT, tokenize.STRING)
            assert not (comment and marks.search(token.string)), f"{name}:{token.start[0]}"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    machine = re.compile(rb"(?<![\w.:/])/(?:home|Users|root|work|mnt|media|tmp/w)/")
    for name in tracked():
        content = (ROOT / name).read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.split(b"\n"), 1):
            assert not machine.search(line), f"{name}:{number}: {line[:200]!r}"


def test_every_setting_has_its_line_of_help() -> None:
    for module in modules():
        importlib.import_module(module.name)
    from transduce.blueprint import Blueprint

    waiting, silent = [Blueprint], []
    while waiting:
        blueprint = waiting.pop()
        waiting += blueprint.__subclasses__()
        if blueprint.__module__.startswith("transduce."):
            silent += [
                f"{blueprint.__module__}.{blueprint.__name__}.{name}"
                for name, field in blueprint.model_fields.items()
                if name != "kind" and not field.description
            ]
    assert not silent, "\n".join(silent)
