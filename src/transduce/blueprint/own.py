"""Parts from files of a user's own.

Such a file is run only where a person names it: in an experiment that is trained, on the command
line, or in a call. What a run or a model folder says about it is a record and never runs anything.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from transduce.blueprint.part import Blueprint, Part
from transduce.problem import Problem


class OwnFile(SourceLoader):
    """Runs the content that was read, and leaves no compiled copy beside the file."""

    def __init__(self, path: Path) -> None:
        self.path, self.content = str(path), path.read_bytes()

    def get_filename(self, fullname: str) -> str:
        """Return where it was read."""
        return self.path

    def get_data(self, path: str | bytes) -> bytes:
        """Return what was read."""
        return self.content


def define(path: Path) -> None:
    """Run a file, so that the parts in it join their slots; again only after it was changed.

    Its module is called by its path, so that every part knows where it comes from.

    Raises:
        Problem: there is no such file, it fails, or a part in it is not whole.
    """
    try:
        file = OwnFile(path.resolve())
    except OSError as error:
        raise Problem(f"cannot be read: {error.strerror}", str(path)) from None
    known = sys.modules.get(file.path)
    if known is not None:
        if _content(known) == file.content:
            return
        _withdraw(known)
    spec = spec_from_loader(file.path, file)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[file.path] = module  # annotations are looked up there
    try:
        file.exec_module(module)
        _check(module)
    except Exception as error:
        _withdraw(module)
        if isinstance(error, Problem):
            raise
        said, *_ = str(getattr(error, "msg", error)).split("\n")
        what = f"{type(error).__name__}: {said}"
        raise Problem(what, f"{path}:{_line(error, file.path)}") from error


def _withdraw(module: ModuleType) -> None:
    """Forget a module; its classes may live on where something refers to them."""
    del sys.modules[module.__name__]
    for part in _parts(module):
        part.withdrawn = True


def _parts(module: ModuleType) -> list[type[Part]]:
    """Return all parts and slots that a module defines."""
    found = (thing for thing in vars(module).values() if inspect.isclass(thing))
    return [t for t in found if issubclass(t, Part) and t.__module__ == module.__name__]


def _line(error: Exception, file: str) -> int:
    """Return the line of the file at which it failed."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in reversed(frames) if frame.filename == file), 1)


def _check(module: ModuleType) -> None:
    """Refuse what would only be noticed later, and less plainly."""
    parts = [part for part in _parts(module) if not part.is_slot()]
    if not parts:
        raise Problem(
            "it defines no part; a part is a subclass of a slot, such as ConnectionBlueprint, with "
            'a field kind: Literal["its_name"] = "its_name"',
            module.__file__,
        )
    for part in parts:
        where = f"{module.__file__}:{inspect.getsourcelines(part)[1]}"
        kind = part.model_fields["kind"].annotation
        if get_origin(kind) is not Literal or len(get_args(kind)) != 1:
            name = f'kind: Literal["{part.__name__.lower()}"]'
            raise Problem(f"the kind of {part.__name__} must be one word, such as {name}", where)
        if missing := ", ".join(sorted(getattr(part, "__abstractmethods__", ()))):
            raise Problem(f"{part.__name__} does not say how to {missing}; define it", where)
        for slot in part.__mro__[1:]:
            if issubclass(slot, Part) and slot is not Part and slot.is_slot():
                _is_free(part, slot, where)


def _is_free(part: type[Part], slot: type[Part], where: str) -> None:
    try:
        slot.choices()
    except TypeError:
        (kind,) = get_args(part.model_fields["kind"].annotation)
        raise Problem(f"there is another part of kind {kind!r}; choose another", where) from None


def files(*blueprints: Blueprint) -> dict[str, str]:
    """Return the files, with their SHA-256, of all parts that do not come with this package."""
    modules = {type(part).__module__ for part in _inside(blueprints)}
    found = {}
    for name in sorted(name for name in modules if name.partition(".")[0] != "transduce"):
        path = getattr(sys.modules.get(name), "__file__", None) or name  # a notebook has no file
        found[path] = hashlib.sha256(_content(sys.modules.get(name))).hexdigest()
    return found


def _content(module: ModuleType | None) -> bytes:
    """Return what was run, or else what is in the module's file."""
    if file := _own(module):
        return file.content
    path = getattr(module, "__file__", None)
    return Path(path).read_bytes() if path else b""


def _inside(value: Any) -> Iterator[Blueprint]:
    if isinstance(value, Blueprint):
        yield value
        value = [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for item in value:
            yield from _inside(item)


def not_run(paths: Iterable[str]) -> list[str]:
    """Return those of the recorded files that ``define`` ran no namesake of."""
    run = {Path(name).name for name, module in [*sys.modules.items()] if _own(module)}
    return [path for path in paths if Path(path).name not in run]


def _own(module: ModuleType | None) -> OwnFile | None:
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return loader if isinstance(loader, OwnFile) else None
