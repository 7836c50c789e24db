"""A model of a disk that loses what was not forced to it when the power goes.

What is done to a folder is recorded. A disk may then have kept any part of what was not forced: a
name that was given, taken away or changed (a rename as a whole, or not at all) is safe once its
folder was forced; of a file that was not forced itself there may be nothing, a part, zeros or all.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch


@dataclass(eq=False)
class File:
    """A file as it is now."""

    content: bytes = b""


@dataclass(eq=False)
class Folder:
    """A folder as it is now."""

    entries: dict[str, File | Folder] = field(default_factory=dict)


class Named(NamedTuple):
    """In a folder a name was given to something (None: taken away), another one was given up."""

    folder: Folder
    name: str
    what: File | Folder | None
    before: str | None = None


class Wrote(NamedTuple):
    """A file got content."""

    file: File
    content: bytes


class Forced(NamedTuple):
    """A file or what is in a folder was forced to the disk."""

    what: File | Folder


class Done(NamedTuple):
    """Something that has to last from now on was finished."""

    what: str


Event = Named | Wrote | Forced | Done


class Recorder:
    """Records what happens in a folder, which is empty at first."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, Folder()
        self.events: list[Event] = []

    def done(self, what: str) -> None:
        """Note that something was finished."""
        self.scan()
        self.events.append(Done(what))

    def scan(self) -> None:
        """Note what has changed since the last look."""
        self._scan(self.root, self.top)

    def _scan(self, path: Path, known: Folder) -> None:
        for name in sorted(known.entries.keys() - {one.name for one in path.iterdir()}):
            self._name(known, name, None)
        for one in sorted(path.iterdir()):
            entry = known.entries.get(one.name)
            if entry is None:
                entry = Folder() if one.is_dir() else File()
                self._name(known, one.name, entry)
            if isinstance(entry, Folder):
                self._scan(one, entry)
            elif (content := one.read_bytes()) != entry.content:
                entry.content = content
                self.events.append(Wrote(entry, content))

    def _name(self, folder: Folder, name: str, what: File | Folder | None) -> None:
        if what is None:
            del folder.entries[name]
        else:
            folder.entries[name] = what
        self.events.append(Named(folder, name, what))

    def find(self, path: Path) -> File | Folder | None:
        """Return what is known of a path."""
        here: File | Folder | None = self.top
        for part in path.relative_to(self.root).parts:
            here = here.entries.get(part) if isinstance(here, Folder) else None
        return here

    def rename(self, before: Path, after: Path) -> None:
        """Note that something has another name, in the same folder."""
        parent = self.find(before.parent)
        assert isinstance(parent, Folder)
        assert before.parent == after.parent
        parent.entries[after.name] = what = parent.entries.pop(before.name)
        self.events.append(Named(parent, after.name, what, before.name))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every rename, removal and fsync of this process."""
        kept = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "unlink")}

        def fsync(handle: int) -> None:
            self.scan()
            kept["fsync"](handle)
            what = self.find(Path(os.readlink(f"/proc/self/fd/{handle}")))
            if what:
                self.events.append(Forced(what))

        def moving(name: str) -> Callable[..., None]:
            def move(before: Path, after: Path, **more: Any) -> None:
                self.scan()
                kept[name](before, after, **more)
                self.rename(Path(before), Path(after))

            return move

        def unlink(path: Path, **more: Any) -> None:
            self.scan()
            kept["unlink"](path, **more)

        rename, replace = moving("rename"), moving("replace")
        with patch.multiple(os, fsync=fsync, unlink=unlink, rename=rename, replace=replace):
            yield
        self.scan()


def after_the_cut(events: list[Event], cut: int, draw: random.Random | None) -> Folder:
    """Return what may be on the disk if the power goes after so many events.

    Without ``draw`` nothing is there that was not forced.
    """
    forced: dict[int, int] = {}  # when each thing was forced for the last time
    for place, event in enumerate(events[:cut]):
        if isinstance(event, Forced):
            forced[id(event.what)] = place
    content: dict[int, bytes] = {}
    entries: dict[int, dict[str, File | Folder]] = {}
    for place, event in enumerate(events[:cut]):
        if isinstance(event, Wrote):
            safe = forced.get(id(event.file), -1) > place
            content[id(event.file)] = event.content if safe else _torn(event.content, draw)
        elif isinstance(event, Named):
            safe = forced.get(id(event.folder), -1) > place
            if safe or (draw and draw.random() < 0.5):
                names = entries.setdefault(id(event.folder), {})
                if event.before and names.get(event.before) is event.what:
                    del names[event.before]
                if event.what is None:
                    names.pop(event.name, None)
                else:
                    names[event.name] = event.what

    def rest(what: File | Folder) -> File | Folder:
        if isinstance(what, File):
            return File(content.get(id(what), b""))
        return Folder({name: rest(one) for name, one in entries.get(id(what), {}).items()})

    first = next(event.folder for event in events if isinstance(event, Named))
    left = rest(first)
    assert isinstance(left, Folder)
    return left


def _torn(content: bytes, draw: random.Random | None) -> bytes:
    """Return what may be left of a file that was not forced to the disk."""
    if draw is None:
        return b""
    part = draw.randrange(len(content) + 1)
    return draw.choice([b"", content[:part], bytes(len(content)), content])


def write(left: Folder, path: Path) -> None:
    """Put it on a real disk."""
    path.mkdir()
    for name, one in left.entries.items():
        if isinstance(one, Folder):
            write(one, path / name)
        else:
            (path / name).write_bytes(one.content)
