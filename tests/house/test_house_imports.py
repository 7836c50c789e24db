"""Imports flow one way, and what only some users need is imported only when they need it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Final

import pytest

from house import ROOT, SOURCE, imported, modules

# A unit may import itself and any unit of a lower floor; nothing else of ours.
FLOORS: Final = (
    {"problem"},
    {"tree", "sequences", "asking", "blueprint", "folder"},
    {"text", "signal", "nn", "search", "evaluate", "report"},
    {"data", "models", "testing", "result"},
    {"train", "adapt"},
    {"bundle", "explain", "experiment"},
    {"panel", "document"},
    {"call"},
    {"transducer"},
    {"bayes_risk", "rerank", "confidence"},
    {"recipe"},
    {"quickstart"},
    {"cli"},
    {"__main__"},
)
FLOOR: Final = {unit: height for height, floor in enumerate(FLOORS) for unit in floor}
BELOW: Final = FLOORS[0] | FLOORS[1]
# Units that may use less than all of the floors below them.
ONLY: Final = {
    "data": {"text", "signal"} | BELOW,
    "models": {"nn"} | BELOW,
    "testing": {"search"} | BELOW,
}
# The front door opens on first use, so that ``import transduce`` stays quick.
UPWARDS: Final = {("transduce", "transduce.transducer")}


def unit(name: str) -> str:
    """Return the part of the package that a dotted name belongs to ("" for the package)."""
    return name.partition(".")[2].partition(".")[0]


def test_every_unit_has_its_floor() -> None:
    units = {unit(module.name) for module in modules()} - {""}
    assert units <= FLOOR.keys(), "a new unit needs a place in FLOORS"


def test_imports_flow_one_way() -> None:
    """Imports within functions and for type checkers count as well: they are dependence too."""
    wrong = []
    for module in modules():
        own = unit(module.name)
        allowed = ONLY.get(own, {other for other in FLOOR if FLOOR[other] < FLOOR.get(own, 0)})
        for node, name in imported(module, module.tree):
            if name.split(".")[0] != "transduce" or (module.name, name) in UPWARDS:
                continue
            if unit(name) not in allowed | {own, ""}:
                wrong.append(f"{module.at(node)}: {own or 'the package'} may not import {name}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_in_a_circle() -> None:
    edges = {
        module.name: {
            name for _, name in imported(module, module.tree) if name.startswith("transduce")
        }
        for module in modules()
    }
    edges["transduce"] = set()  # the front door is opened later
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.stmt):
                yield child
            waiting.append(child)


def required() -> set[str]:
    """Return the packages that everybody who installs this one has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[^\w]", line)[0] for line in project["dependencies"]}


def test_only_required_packages_are_imported_by_importing_us() -> None:
    allowed = required() | sys.stdlib_module_names
    allowed |= {"transduce", "pydantic_core"}  # the latter is a fixed part of pydantic
    wrong = []
    for module in modules():
        for statement in at_import(module.tree):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for node, name in imported(module, ast.Module([statement], [])):
                    if name.split(".")[0] not in allowed:
                        wrong.append(f"{module.at(node)}: import {name} where it is used")
    assert not wrong, "\n".join(wrong)


def test_every_required_package_is_used() -> None:
    used = {name.split(".")[0] for module in modules() for _, name in imported(module, module.tree)}
    assert required() <= used


@pytest.mark.parametrize("name", ["transduce", "transduce.blueprint", "transduce.cli"])
def test_importing_the_front_does_not_import_torch(name: str) -> None:
    heavy = "sorted({'torch', 'numpy', 'sentencepiece', 'sacrebleu'} & sys.modules.keys())"
    command = [sys.executable, "-c", f"import sys, {name}; print({heavy})"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_package_is_imported_from_this_tree() -> None:
    """Else the tests would test what is installed and these tests what is written."""
    command = [sys.executable, "-c", "import transduce; print(transduce.__file__)"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(SOURCE / "__init__.py")
