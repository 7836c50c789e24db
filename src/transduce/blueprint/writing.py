"""From a blueprint to YAML text that explains itself, and to a JSON schema for editors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

from pydantic.json_schema import models_json_schema
from pydantic_core import to_jsonable_python

from transduce.blueprint.part import Blueprint, Part
from transduce.blueprint.shape import is_slot, named, walk
from transduce.blueprint.yaml12 import write_scalar

WIDTH = 100


@dataclass(frozen=True)
class Line:
    """One line of YAML and its comment."""

    depth: int
    text: str
    comment: str = ""

    @property
    def indented(self) -> str:
        """The line without its comment."""
        return "  " * self.depth + self.text


def dump(blueprint: Blueprint, comments: bool = True) -> str:
    """Write a blueprint with all its values as YAML text, which reads back equal.

    Args:
        blueprint: what to write.
        comments: whether to add every key's line of help and its choices.
    """
    lines = list(_mapping(blueprint, 0, ""))
    if not comments:
        return "".join(f"{line.indented}\n" for line in lines)
    rows: list[str] = []
    for run in _runs(lines):
        rows += [""] if rows and run[0].depth == 0 else []
        rows += _commented(run)
    return "".join(f"{row}\n" for row in rows)


def _runs(lines: list[Line]) -> Iterator[list[Line]]:
    """Yield the lines that stand together: one depth, and one section of the whole."""
    run = lines[:1]
    for line in lines[1:]:
        if line.depth != run[0].depth or (line.depth == 0 and line.text.endswith(":")):
            yield run
            run = []
        run.append(line)
    yield run


def _commented(run: list[Line]) -> Iterator[str]:
    """Write comments behind their lines, one below the other, or above where they are too long."""
    column = max(len(line.indented) for line in run) + 2
    for line in run:
        behind = f"{line.indented:<{column}}# {line.comment}"
        if not line.comment:
            yield line.indented
        elif len(behind) <= WIDTH:
            yield behind
        else:
            start = "  " * line.depth + "# "
            yield from textwrap.wrap(
                line.comment, WIDTH, initial_indent=start, subsequent_indent=start
            )
            yield line.indented


def _mapping(blueprint: Blueprint, depth: int, kinds: str) -> Iterator[Line]:
    """Yield the entries of a blueprint; ``kinds`` are the choices of the slot that it fills."""
    fields = type(blueprint).model_fields
    for name, field in sorted(fields.items(), key=lambda entry: entry[0] != "kind"):
        value, annotation = getattr(blueprint, name), field.annotation
        help_ = " ".join((field.description or "").split())
        if name == "kind" and kinds:
            help_ = kinds
        yield from _entry(f"{name}:", value, depth, help_, _choices(annotation))


def _entry(head: str, value: Any, depth: int, help_: str, choices: str) -> Iterator[Line]:
    """Yield the lines of one key or one item of a list."""
    if (short := _inline(value)) is not None:
        yield Line(depth, f"{head} {short}", f"{help_} {choices}".strip())
        return
    yield Line(depth, head, help_)
    if isinstance(value, Blueprint):
        yield from _mapping(value, depth + 1, choices)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _entry(f"{write_scalar(key)}:", inner, depth + 1, "", choices)
    else:
        for inner in value:
            yield from _item(inner, depth + 1, choices)


def _item(value: Any, depth: int, choices: str) -> Iterator[Line]:
    """Yield an item of a list, the dash before the first of its lines."""
    dash, *lines = _entry("-", value, depth, "", choices)
    if lines:
        yield replace(lines[0], depth=depth, text=f"- {lines[0].text}")
        yield from lines[1:]
    else:
        yield dash


def _inline(value: Any) -> str | None:
    """Return a value that fits behind its key, or None."""
    if isinstance(value, Part) and list(type(value).model_fields) == ["kind"]:
        return write_scalar(value.model_dump()["kind"])
    if isinstance(value, Blueprint) or (isinstance(value, dict) and value):
        return None
    if isinstance(value, list | tuple | set | frozenset):
        items = [_inline(item) for item in value]
        return None if None in items else f"[{', '.join(map(str, items))}]"
    return "{}" if value == {} else write_scalar(to_jsonable_python(value))


def _choices(annotation: Any) -> str:
    """Return all words that may stand in a value of this type."""
    words: list[str] = []
    for member in named(annotation):
        if get_origin(member) is Literal:
            words += map(write_scalar, get_args(member))
        elif is_slot(member):
            words += member.choices()
    return f"({', '.join(words)})" if len(words) > 1 else ""


def schema(kind: type[Blueprint]) -> dict[str, Any]:
    """Return the JSON schema of a configuration file, for editors that complete and check keys."""
    parts = list({part: None for _, part in walk(kind)})
    references, definitions = models_json_schema([(part, "validation") for part in parts])
    addresses = {part: references[part, "validation"] for part in parts}
    known = definitions["$defs"]
    for part in parts:
        for field in part.model_fields.values():
            for slot in filter(is_slot, named(field.annotation)):
                known[slot.slot_name()] = _slot(slot, addresses)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **addresses[kind],
        "$defs": _linked(known),
    }


def _slot(slot: type[Part], addresses: dict[type[Blueprint], Any]) -> dict[str, Any]:
    choices = slot.choices()
    bare = [k for k, part in choices.items() if not _required(part)]
    return {
        "description": (slot.__doc__ or "").partition("\n")[0],
        "anyOf": [
            {"enum": bare},
            *({**addresses[part], "required": ["kind"]} for part in choices.values()),
        ],
    }


def _required(part: type[Part]) -> list[str]:
    return [name for name, field in part.model_fields.items() if field.is_required()]


def _linked(tree: Any) -> Any:
    """Replace what slots left in the schema by references to their definitions."""
    if isinstance(tree, dict):
        if isinstance(tree.get("slot"), str):
            rest = {key: value for key, value in tree.items() if key != "slot"}
            return {"$ref": f"#/$defs/{tree['slot']}", **rest}
        return {key: _linked(value) for key, value in tree.items()}
    return [_linked(item) for item in tree] if isinstance(tree, list) else tree
