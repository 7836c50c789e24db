"""What a blueprint expects and where: types in words, and a walk over all its keys."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from transduce.blueprint.part import Blueprint, Part
from transduce.blueprint.yaml12 import Path, entry, write_scalar

NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
    Any: "a value",
}
BOUNDS = {
    "gt": "> {}",
    "ge": ">= {}",
    "lt": "< {}",
    "le": "<= {}",
    "multiple_of": "divisible by {}",
}
LENGTHS = {"min_length": "of at least {}", "max_length": "of at most {}"}


def members(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of a type, each without its bounds."""
    if get_origin(annotation) is Annotated:
        yield from members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from members(part)
    else:
        yield annotation


def describe(annotation: Any, bounds: tuple[Any, ...] = ()) -> str:
    """Say in words what a value of this type looks like."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(inner[0], (*bounds, *inner[1:]))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part, bounds) for part in inner)
    if origin is Literal:
        return _one_of([write_scalar(choice) for choice in inner])
    if is_slot(annotation):
        return _one_of(list(annotation.choices()))
    if is_blueprint(annotation):
        required = [name for name, field in annotation.model_fields.items() if field.is_required()]
        return f"a mapping with {', '.join(required)}" if required else "a mapping"
    if origin is dict:
        return f"a mapping of names to {describe(inner[1])}"
    if origin in (list, tuple, set, frozenset):
        return _describe_list(inner, bounds)
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return "a path"
    name = NAMES.get(annotation) or getattr(annotation, "__name__", str(annotation))
    limits = " and ".join(_bounds(bounds, BOUNDS)) if annotation in (int, float) else ""
    return f"{name} {limits}".rstrip()


def _describe_list(inner: tuple[Any, ...], bounds: tuple[Any, ...]) -> str:
    if len(inner) > 1 and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)} ({', '.join(map(describe, inner))})"
    size = " and ".join(_bounds(bounds, LENGTHS))
    return f"a list {size} (each {describe(inner[0])})".replace("  ", " ")


def _bounds(metadata: tuple[Any, ...], phrases: dict[str, str]) -> list[str]:
    flat = [
        part
        for item in metadata
        for part in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    return [
        phrase.format(write_scalar(getattr(item, name)))
        for item in flat
        for name, phrase in phrases.items()
        if getattr(item, name, None) is not None
    ]


def _one_of(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"one of ({', '.join(choices)})"


def is_blueprint(annotation: Any) -> TypeGuard[type[Blueprint]]:
    """Return whether a type is a blueprint or a slot."""
    return isinstance(annotation, type) and issubclass(annotation, Blueprint)


def is_slot(annotation: Any) -> TypeGuard[type[Part]]:
    """Return whether a type is a slot."""
    return is_blueprint(annotation) and issubclass(annotation, Part) and annotation.is_slot()


def words(annotation: Any) -> list[str]:
    """Return all words that may stand for a value of this type."""
    found: list[str] = []
    for member in members(annotation):
        if get_origin(member) is Literal:
            found += [choice for choice in get_args(member) if isinstance(choice, str)]
        elif member is bool:
            found += ["true", "false"]
        elif is_slot(member):
            found += member.choices()
    return found


def named(annotation: Any) -> Iterator[Any]:
    """Yield every blueprint, slot and Literal in a type, those inside of lists and mappings too."""
    for member in members(annotation):
        if is_blueprint(member) or get_origin(member) is Literal:
            yield member
        else:
            for inner in get_args(member):
                yield from named(inner)


def blueprints(annotation: Any) -> Iterator[type[Blueprint]]:
    """Yield the blueprints that a value of this type may hold; for a slot, all its choices."""
    for member in filter(is_blueprint, named(annotation)):
        yield from member.choices().values() if is_slot(member) else [member]


def walk(
    kind: type[Blueprint], path: Path = (), around: frozenset[type[Blueprint]] = frozenset()
) -> Iterator[tuple[Path, type[Blueprint]]]:
    """Yield every blueprint that may stand somewhere in ``kind``, with the keys that lead to it.

    Where a part holds parts of its own slot, those are yielded, and what they hold is not: any of
    them may stand in any other, without end.
    """
    yield path, kind
    if (slot := _slot(kind)) not in around:
        for name, field in kind.model_fields.items():
            for inner in blueprints(field.annotation):
                yield from walk(inner, (*path, name), around | {slot})


def _slot(kind: type[Blueprint]) -> type[Blueprint]:
    """Return the slot that a part is made for; of another blueprint, itself."""
    slots = [base for base in kind.__mro__ if is_slot(base) and base is not Part]
    return slots[-1] if slots else kind


def annotation_at(kind: type[Blueprint], data: Any, path: Path) -> Any:
    """Return the type, with its bounds, of what stands at ``path`` in ``data``, or None."""
    annotation: Any = kind
    for step in path:
        candidates = (_inside(member, data, step) for member in members(annotation))
        annotation = next((found for found in candidates if found is not None), None)
        data = entry(data, step)
    return annotation


def _inside(annotation: Any, data: Any, step: str | int) -> Any:
    """Return the type of what stands at the key or index ``step``, or None if nothing may."""
    inner = get_args(annotation)
    if is_blueprint(annotation):
        blueprint = filled(annotation, data)
        field = blueprint.model_fields.get(str(step)) if blueprint else None
        if field is None:
            return None
        return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    if get_origin(annotation) is dict and isinstance(data, dict):
        return inner[1]
    if get_origin(annotation) in (list, tuple, set, frozenset) and isinstance(data, list):
        several = len(inner) > 1 and inner[-1] is not Ellipsis
        return inner[int(step)] if several else inner[0]
    return None


def filled(blueprint: type[Blueprint], data: Any) -> type[Blueprint] | None:
    """Return the blueprint itself or, for a slot, the choice that ``data`` names."""
    if is_slot(blueprint):
        kind = data.get("kind") if isinstance(data, dict) else data
        return blueprint.choices().get(kind) if isinstance(kind, str) else None
    return blueprint


def blueprint_at(kind: type[Blueprint], data: Any, path: Path) -> type[Blueprint] | None:
    """Return the blueprint that stands at ``path``; None for another type or an unfilled slot."""
    annotation = annotation_at(kind, data, path)
    for step in path:
        data = entry(data, step)
    candidates = (filled(member, data) for member in members(annotation) if is_blueprint(member))
    return next(candidates, None)
