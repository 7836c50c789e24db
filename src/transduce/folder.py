"""Folders and files that are there whole or not at all, and that know when they were damaged.

A folder is filled under a temporary name, every file is forced to the disk, a manifest with size
and SHA-256 of each is written last, and only then does the folder get its name. What can be loaded
is therefore complete, and one flipped bit is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transduce.problem import Problem

MANIFEST = "manifest.json"


def write(target: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` write files into a new folder, then put it at ``target``, replacing what was."""
    recover(target)
    fresh, old = unfinished(target), _beside(target, "old")
    for rest in (fresh, old):
        shutil.rmtree(rest, ignore_errors=True)
    make(target.parent)
    fresh.mkdir()
    try:
        fill(fresh)
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        manifest = {path.relative_to(fresh).as_posix(): _facts(path) for path in files}
        write_json(fresh / MANIFEST, {"files": manifest})
        for path in [*files, *(path for path in fresh.rglob("*") if path.is_dir()), fresh]:
            force(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    force(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def unfinished(target: Path) -> Path:
    """Return the folder that ``write`` fills before it is put at ``target``."""
    return _beside(target, "new")


def make(target: Path) -> None:
    """Make a folder and those above it; a new name is forced to the disk."""
    if not target.is_dir():
        make(target.parent)
        target.mkdir(exist_ok=True)
        force(target.parent)


def recover(target: Path) -> None:
    """Bring the old folder back if the power went between the two renames of ``write``."""
    if not target.exists() and _beside(target, "old").exists():
        _beside(target, "old").rename(target)


@contextmanager
def alone(target: Path, wait: bool) -> Iterator[None]:
    """Let no other process in that asks the same of ``target``; the lock ends with the process.

    Raises:
        Problem: another process is there and ``wait`` is False.
    """
    import fcntl

    make(target)
    with (target / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Problem(
                "another process is at work in this folder; wait for it or choose another folder",
                str(target),
            ) from None
        yield


def verify(target: Path) -> None:
    """Check every file of a folder against its manifest.

    A file that the manifest does not list is left alone: people and systems put theirs anywhere.

    Raises:
        Problem: a file is missing or changed; the message names it.
    """
    recover(target)
    manifest = read_json(target / MANIFEST)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict):
        raise Problem("it lists no files; take another copy", str(target / MANIFEST))
    for name, facts in listed.items():
        path = target / name
        if not path.is_file():
            raise Problem("the file is missing; take another copy of the folder", str(path))
        if facts != _facts(path):
            raise Problem(
                "the file is damaged: its content is not what the manifest says; "
                "take another copy of the folder",
                str(path),
            )


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old content or the new."""
    fresh = _beside(path, "new")
    try:
        fresh.write_text(text, encoding="utf-8", newline="\n")
        force(fresh)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    force(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file at once."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        Problem: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise Problem("there is no such file", str(path)) from None
    except ValueError as error:
        raise Problem(f"this is not JSON ({error}); take another copy", str(path)) from None


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _facts(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def _beside(path: Path, word: str) -> Path:
    return path.with_name(f".{path.name}.{word}")


def force(path: Path) -> None:
    """Force a file, or what is in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
