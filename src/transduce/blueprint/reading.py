"""From a configuration file and what the command line changes in it to a blueprint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from transduce.blueprint import own, yaml12
from transduce.blueprint.mistakes import explain, show
from transduce.blueprint.part import Blueprint
from transduce.blueprint.shape import annotation_at, blueprint_at, blueprints
from transduce.problem import Problem, nearest

B = TypeVar("B", bound=Blueprint)


def read(
    path: str | Path, kind: type[B], overrides: Sequence[str] = (), *, trusted: bool = False
) -> B:
    """Read a blueprint from a YAML file.

    Args:
        path: the file.
        kind: the blueprint that it holds.
        overrides: changes such as ``train.max_steps=1000``, the value written as in the file.
        trusted: run the Python files that it names under ``parts``, seen from its own folder; else
            they are a record, and what they define has to be known already.

    Raises:
        Problem: all mistakes, one a line, each with file, line, key and what to do.
    """
    document = _load(_text(Path(path)), str(path))
    base = Path(path).resolve().parent
    return _validated(document, kind, overrides, base if trusted else None)


def parse(
    text: str, kind: type[B], name: str = "configuration", overrides: Sequence[str] = ()
) -> B:
    """Read a blueprint from YAML text, called ``name`` in errors; otherwise like ``read``."""
    return _validated(_load(text, name), kind, overrides)


def _load(text: str, name: str) -> yaml12.Document:
    document = yaml12.load(text, name)
    if document.data is None:
        document.data = {}
    return document


def override(blueprint: B, overrides: Sequence[str]) -> B:
    """Return a blueprint with changes such as ``search.width=8``.

    Raises:
        Problem: a change is no right one.
    """
    document = yaml12.Document(blueprint.model_dump(mode="json"), {(): "configuration"})
    return _validated(document, type(blueprint), overrides, Path(), parts=False)


def _validated(
    document: yaml12.Document,
    kind: type[B],
    overrides: Sequence[str],
    base: Path | None = None,
    *,
    parts: bool = True,
) -> B:
    """Validate; files are read from ``base`` on, and none are without it."""
    for change in overrides:
        _override(document, kind, change)
    if base is not None and parts:
        _define(document, base)
    try:
        # By way of JSON, because there a list may fill a tuple and yet nothing else is converted.
        return kind.model_validate_json(
            json.dumps(document.data), strict=True, context={"base": base}
        )
    except ValidationError as error:
        if any(detail["type"] == "choice" for detail in error.errors()):
            _check_parts(document)
        raise explain(error, kind, document) from None


def _define(document: yaml12.Document, base: Path) -> None:
    """Run the files under ``parts`` and write them down by their full path."""
    paths = yaml12.entry(document.data, "parts")
    for number, name in enumerate(paths if isinstance(paths, list) else []):
        if isinstance(name, str):
            path, place = base / name, document.place(("parts", number))
            if not path.is_file():
                what = f"there is no file {path}; paths are seen from the experiment's folder"
                raise Problem(what, f"{place}: parts.{number}")
            own.define(path)
            paths[number] = str(path.resolve())


def _check_parts(document: yaml12.Document) -> None:
    """Refuse a document with an unknown choice where files that it was made with were not run."""
    paths = yaml12.entry(document.data, "parts")
    paths = paths if isinstance(paths, list | dict) else []
    if missing := own.not_run(path for path in paths if isinstance(path, str)):
        raise Problem(
            f"this was made with parts from {', '.join(missing)}, and what a folder says is never "
            f"run unasked; name it: --parts {' --parts '.join(missing)}",
            f"{document.place(('parts',))}: parts",
        )


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        folder = path.parent
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        meant = nearest(path.name, names)
        raise Problem(
            "no such file" + (f"; did you mean {meant!r}?" if meant else ""), str(path)
        ) from None
    except OSError as error:
        raise Problem(f"cannot be read: {error.strerror}", str(path)) from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Problem("not UTF-8; save the file as UTF-8", f"{path}:{line}") from None


def _override(document: yaml12.Document, kind: type[Blueprint], change: str) -> None:
    """Change the value that ``a.b.c=value`` names."""
    dotted, equals, text = change.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise Problem("expected key=value, such as train.max_steps=1000", change)
    node, path = document.data, yaml12.Path()
    for key in keys[:-1]:
        step = _step(node, key, change)
        path = (*path, step)
        if yaml12.entry(node, step) is None:
            document.move(path, change)
        node[step] = node = _inner(document, kind, path)
    value = yaml12.load(text, change, numbered=False).data
    step = _step(node, keys[-1], change)
    if step == "kind" and node.get(step) != value:  # what another kind has by default goes with it
        for other in [other for other in node if (*path, other) not in document.places]:
            del node[other]
    node[step] = value
    document.move((*path, step), change)


def _step(node: Any, key: str, change: str) -> str | int:
    """Return ``key`` as it is used in ``node``."""
    if isinstance(node, dict):
        return key
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return int(key)
    raise Problem(f"there is no {key} in {show(node)}", change)


def _inner(document: yaml12.Document, kind: type[Blueprint], path: yaml12.Path) -> Any:
    """Return what stands at ``path``: a bare kind as a mapping, the default where nothing does."""
    *around, key = path
    value = document.value(path)
    if value is None:
        blueprint = blueprint_at(kind, document.data, tuple(around))
        field = blueprint.model_fields.get(str(key)) if blueprint else None
        default = field.get_default(call_default_factory=True, validated_data={}) if field else None
        return {} if default in (None, PydanticUndefined) else to_jsonable_python(default)
    if isinstance(value, str) and any(blueprints(annotation_at(kind, document.data, path))):
        return {"kind": value}
    return value
