"""From what the validator found to one line per mistake that tells its writer what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, NamedTuple, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from transduce.blueprint.part import Blueprint, Part, no_such_choice
from transduce.blueprint.shape import (
    annotation_at,
    blueprint_at,
    blueprints,
    describe,
    is_blueprint,
    members,
    walk,
    words,
)
from transduce.blueprint.yaml12 import REAL, WHOLE, Document, Path, write_scalar
from transduce.problem import Problem, nearest

MOST = 5  # mistakes shown at once
LONGEST = 40  # letters of a value shown
TRUE, FALSE = {"y", "yes", "on"}, {"n", "no", "off"}  # what YAML 1.1 took for true and false


class Mistake(NamedTuple):
    """One thing to mend."""

    path: Path
    what: str


def explain(error: ValidationError, kind: type[Blueprint], document: Document) -> Problem:
    """Return the mistakes, one a line, in the order in which they were written."""
    found = _Mistakes(kind, document).all(error)
    order = {path: number for number, path in enumerate(document.places)}
    found.sort(key=lambda mistake: order[document.nearest(mistake.path)])
    lines = [(_where(mistake.path, document), mistake.what) for mistake in found]
    rest = [f"{where}: {what}" for where, what in lines[1:MOST]]
    if len(lines) > MOST:
        rest.append(f"and {len(lines) - MOST} more")
    where, what = lines[0]
    return Problem("\n".join([what, *rest]), where)


def _where(path: Path, document: Document) -> str:
    place, dotted = document.place(path), dot(path)
    return place if not path or place.startswith(f"{dotted}=") else f"{place}: {dotted}"


def dot(path: Path) -> str:
    """Write a path as one dotted key."""
    return ".".join(map(str, path))


class _Mistakes:
    """Collects the mistakes of one document."""

    def __init__(self, kind: type[Blueprint], document: Document) -> None:
        self.kind, self.document = kind, document
        self.data = document.data

    def all(self, error: ValidationError) -> list[Mistake]:
        details = error.errors(include_url=False, include_input=False)
        found: dict[Path, Mistake] = {}
        renamed: set[Path] = set()
        for detail in details:
            if detail["type"] != "missing":
                mistake, meant = self.one(detail)
                found.setdefault(mistake.path, mistake)
                renamed |= {(*mistake.path[:-1], meant)} if meant else set()
        for mistake in self.missing(details, renamed):
            found.setdefault(mistake.path, mistake)
        # a list that holds a wrong item is also called too short
        lists = {path[:-1] for path in found if path and isinstance(path[-1], int)}
        return [mistake for path, mistake in found.items() if path not in lists]

    def one(self, detail: ErrorDetails) -> tuple[Mistake, str | None]:
        """Return a mistake and, if a key was misspelt, the key that was meant."""
        path = self.path(detail["loc"])
        if detail["type"] == "extra_forbidden":
            return self.unknown_key(path)
        if detail["type"] in ("value_error", "assertion_error"):
            return Mistake(path, str(detail["ctx"]["error"])), None
        if detail["type"] == "choice":
            return self.wrong_choice(path)
        if detail["type"].startswith("string_") and isinstance(self.document.value(path), str):
            return Mistake(path, detail["msg"].replace("String", "the text")), None
        return Mistake(path, self.wrong_value(path)), None

    def path(self, location: tuple[str | int, ...]) -> Path:
        """Return the keys of a location, without the names of the types that were tried."""
        path: Path = ()
        for step in location:
            value = self.document.value(path)
            item = isinstance(value, list) and isinstance(step, int) and step < len(value)
            if item or (isinstance(value, dict) and step in value):
                path = (*path, step)
        return path

    def missing(self, details: list[ErrorDetails], renamed: set[Path]) -> Iterator[Mistake]:
        groups: dict[Path, list[str | int]] = {}
        for detail in details:
            if detail["type"] == "missing":
                around, key = self.path(detail["loc"][:-1]), detail["loc"][-1]
                if (*around, key) not in renamed:
                    groups.setdefault(around, []).append(key)
        for around, keys in groups.items():
            path = (*around, keys[0])
            if isinstance(keys[0], int):
                yield Mistake(around, self.wrong_value(around))
            elif len(keys) == 1:
                expected = describe(annotation_at(self.kind, self.data, path))
                yield Mistake(path, f"this key is missing; give it {expected}")
            else:
                yield Mistake(around, f"these keys are missing: {', '.join(map(str, keys))}")

    def unknown_key(self, path: Path) -> tuple[Mistake, str | None]:
        *around, key = path
        blueprint = blueprint_at(self.kind, self.data, tuple(around))
        keys = list(blueprint.model_fields) if blueprint else []
        given = self.document.value(tuple(around))
        if elsewhere := self.belongs(tuple(around), str(key)):
            return Mistake(path, f"no such key; {elsewhere}"), None
        free = [name for name in keys if name not in given]
        meant = nearest(str(key), free) or nearest(str(key), keys)
        hint = f"did you mean {meant!r}?" if meant else f"choose from ({', '.join(keys)})"
        return Mistake(path, f"no such key; {hint}"), meant

    def belongs(self, around: Path, key: str) -> str | None:
        """Say where else in the tree ``key`` is known."""
        if key == "kind":
            return None
        names = tuple(step for step in around if isinstance(step, str))
        homes = [(path, kind) for path, kind in walk(self.kind) if key in kind.model_fields]
        chosen = [path for path, kind in homes if blueprint_at(self.kind, self.data, path) is kind]
        if chosen:
            return f"it belongs {_in(min(chosen, key=len))}"
        if not homes:
            return None
        path, kind = min(homes, key=lambda home: (home[0] != names, len(home[0])))
        only = f" of kind {_kind(kind)}" if issubclass(kind, Part) else ""
        return f"it belongs {_in(path)}{only}"

    def wrong_choice(self, path: Path) -> tuple[Mistake, str | None]:
        value = self.document.value(path)
        choices = words(annotation_at(self.kind, self.data, path))
        if isinstance(value, str):
            return Mistake(path, no_such_choice(value, choices)), None
        if not isinstance(value, dict):
            return Mistake(path, self.wrong_value(path)), None
        if isinstance(value.get("kind"), str):
            return Mistake((*path, "kind"), no_such_choice(value["kind"], choices)), None
        if "kind" in value:
            what = f"expected one of ({', '.join(choices)}), found {show(value['kind'])}"
            return Mistake((*path, "kind"), what), None
        parts = blueprints(annotation_at(self.kind, self.data, path))
        known = {name for part in parts for name in part.model_fields}
        meant = nearest("kind", [key for key in value if key not in known])
        if meant:
            return Mistake((*path, meant), "no such key; did you mean 'kind'?"), "kind"
        return Mistake((*path, "kind"), f"this key is missing; choose ({', '.join(choices)})"), None

    def wrong_value(self, path: Path) -> str:
        value, annotation = self.document.value(path), annotation_at(self.kind, self.data, path)
        choices = words(annotation)
        expected, mend = describe(annotation), _mend(value, annotation)
        if isinstance(value, str) and not mend:
            if f"one of ({', '.join(choices)})" == expected:
                return no_such_choice(value, choices)
            if meant := nearest(value, choices):
                mend = f"; did you mean {meant!r}?"
        return f"expected {expected}, found {show(value)}{mend}"


def show(value: Any) -> str:
    """Return a short picture of a value."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = f"{value!r}" if isinstance(value, str) else write_scalar(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _in(path: Path) -> str:
    return f"in {dot(path)}" if path else "at the top"


def _kind(part: type[Part]) -> str:
    return next(iter(words(part.model_fields["kind"].annotation)))


def _mend(value: Any, annotation: Any) -> str:
    """Return how to write a value so that it gets the right type, if that can be seen."""
    kinds = set(members(annotation))
    lists = {get_origin(kind) for kind in kinds} & {list, tuple}
    if isinstance(value, str) and (mend := _mend_text(value, kinds)):
        return mend
    if isinstance(value, float) and not isfinite(value):
        return "; it must be finite"
    if isinstance(value, float) and int in kinds and value.is_integer():
        return f"; write {int(value)}"
    if isinstance(value, int | float) and str in kinds:
        return f"; write it in quotes: {write_scalar(str(value))}"
    if isinstance(value, str | int | float) and lists:
        return f"; write [{write_scalar(value)}]"
    return ""


def _mend_text(value: str, kinds: set[Any]) -> str:
    number = re.sub("[_, ]", "", value)
    if kinds & {int, float} and (WHOLE.fullmatch(number) or REAL.fullmatch(number)):
        return f"; write {number} without quotes"
    if bool in kinds and value.lower() in TRUE | FALSE:
        return f"; write {'true' if value.lower() in TRUE else 'false'}"
    if ":" in value and any(is_blueprint(kind) for kind in kinds):
        return "; a colon needs a space behind it"
    return ""
