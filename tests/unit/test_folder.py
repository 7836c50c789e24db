from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transduce import folder
from transduce.problem import Problem

FILES = {"a.txt": b"alpha\n", "deep/b.bin": bytes(range(256)), "empty": b""}


def fill(fresh: Path, files: dict[str, bytes] = FILES) -> None:
    for name, content in files.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_bytes(content)


def fail(fresh: Path) -> None:
    fill(fresh)
    raise KeyboardInterrupt


def content(target: Path) -> dict[str, bytes]:
    paths = [path for path in target.rglob("*") if path.is_file()]
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in paths}
    found.pop(folder.MANIFEST)
    return found


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder that holds FILES."""
    folder.write(tmp_path / "model", fill)
    return tmp_path / "model"


def test_what_was_written_is_there_and_verifies(target: Path) -> None:
    folder.verify(target)
    assert content(target) == FILES
    listed = folder.read_json(target / folder.MANIFEST)["files"]
    assert {name: facts["bytes"] for name, facts in listed.items()} == {
        "a.txt": 6,
        "deep/b.bin": 256,
        "empty": 0,
    }


def test_a_new_folder_replaces_the_old_one_and_leaves_nothing_beside_it(target: Path) -> None:
    folder.write(target, lambda fresh: (fresh / "c").write_bytes(b"new"))
    folder.verify(target)
    assert content(target) == {"c": b"new"}
    assert os.listdir(target.parent) == ["model"]


def test_parents_are_made(tmp_path: Path) -> None:
    folder.write(tmp_path / "some" / "where", fill)
    assert content(tmp_path / "some" / "where") == FILES


def test_a_failure_leaves_the_old_folder_and_nothing_beside_it(target: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        folder.write(target, fail)
    folder.verify(target)
    assert content(target) == FILES
    assert os.listdir(target.parent) == ["model"]


def test_a_failure_of_the_first_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        folder.write(tmp_path / "model", fail)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.txt", "deep/b.bin", folder.MANIFEST])
def test_one_flipped_bit_is_found(target: Path, name: str) -> None:
    path = target / name
    original = path.read_bytes()
    for place in range(len(original)):
        for bit in (0, 3, 5, 7):
            damaged = bytearray(original)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(Problem) as caught:
                folder.verify(target)
            assert str(target) in str(caught.value)
    path.write_bytes(original)
    folder.verify(target)


@pytest.mark.parametrize("name", ["a.txt", "deep/b.bin", folder.MANIFEST])
def test_a_file_cut_short_or_gone_is_found_and_named(target: Path, name: str) -> None:
    path = target / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(Problem) as caught:
        folder.verify(target)
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(Problem) as caught:
        folder.verify(target)
    assert caught.value.where == str(path)


def test_a_file_grown_from_empty_is_found(target: Path) -> None:
    (target / "empty").write_bytes(b"?")
    with pytest.raises(Problem, match=r"empty: the file is damaged.*; take another copy"):
        folder.verify(target)


def test_files_of_others_are_left_alone(target: Path) -> None:
    (target / ".directory").write_bytes(b"mine")
    folder.verify(target)


@pytest.mark.parametrize("manifest", [[], {}, {"files": []}, {"files": None}, 3, "x"])
def test_a_manifest_that_is_none_is_refused(target: Path, manifest: Any) -> None:
    (target / folder.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(Problem, match="lists no files"):
        folder.verify(target)


def test_no_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("nothing", "file"):
        with pytest.raises(Problem, match="there is no such file"):
            folder.verify(tmp_path / name)


class PowerCut(BaseException):
    """Nothing runs after it, not even cleaning up."""


def cut_power(monkeypatch: pytest.MonkeyPatch, calls: int) -> list[str]:
    """Let all that changes the disk fail from call number ``calls`` on; return what was called."""
    done: list[str] = []

    def guard(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def guarded(*args: Any, ignore_errors: bool = False) -> Any:
            if len(done) >= calls:
                raise PowerCut
            done.append(name)
            return original(*args, ignore_errors) if name == "rmtree" else original(*args)

        monkeypatch.setattr(owner, name, guarded)

    for owner, name in [
        (os, "fsync"),
        (Path, "rename"),
        (Path, "replace"),
        (shutil, "rmtree"),
        (Path, "write_bytes"),
    ]:
        guard(owner, name)
    return done


def test_whenever_the_power_goes_the_old_or_the_new_folder_is_there_whole(tmp_path: Path) -> None:
    new = {"a.txt": b"later\n", "more": b"."}
    outcomes = []
    for calls in range(100):
        target = tmp_path / str(calls) / "model"
        folder.write(target, fill)
        with pytest.MonkeyPatch.context() as patch:
            cut_power(patch, calls)
            try:
                folder.write(target, lambda fresh: fill(fresh, new))
                complete = True
            except PowerCut:
                complete = False
        folder.verify(target)
        assert content(target) in (FILES, new)
        outcomes.append(content(target) == new)
        if complete:
            break
    assert outcomes == sorted(outcomes)
    assert outcomes[0] is False
    assert outcomes[-1] is True


def between_the_renames(target: Path) -> None:
    target.rename(target.with_name(f".{target.name}.old"))


def test_the_old_folder_comes_back_when_the_power_went_between_the_renames(target: Path) -> None:
    between_the_renames(target)
    folder.verify(target)
    assert content(target) == FILES


def test_the_only_copy_survives_a_second_failure(target: Path) -> None:
    """After a cut between the renames the old folder is all there is, until a new one is whole."""
    between_the_renames(target)
    with pytest.raises(KeyboardInterrupt):
        folder.write(target, fail)
    folder.verify(target)
    assert content(target) == FILES


def test_every_file_and_folder_is_forced_to_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[int] = []
    before_naming: list[int] = []
    sync, rename = os.fsync, Path.rename

    def note(handle: int) -> None:
        forced.append(os.fstat(handle).st_ino)
        sync(handle)

    def name(path: Path, to: Path) -> Path:
        before_naming.extend(forced)
        return rename(path, to)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", name)
    folder.write(tmp_path / "model", fill)
    within = [tmp_path / "model", *(tmp_path / "model").rglob("*")]
    assert {path.stat().st_ino for path in within} <= set(before_naming)
    assert forced[-1] == tmp_path.stat().st_ino


def test_a_text_is_replaced_at_once_and_keeps_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "text"
    folder.write_text(path, "old\n")
    folder.write_text(path, "é\r\n\u2028\n")
    assert path.read_bytes() == "é\r\n\u2028\n".encode()
    assert os.listdir(tmp_path) == ["text"]


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "text"
    folder.write_text(path, "old\n")
    with pytest.raises(UnicodeEncodeError):
        folder.write_text(path, "\ud800")
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["text"]


def test_json_is_written_for_people_and_read_back_equal(tmp_path: Path) -> None:
    value = {"name": "Straße", "list": [1, 2.5, None, True]}
    folder.write_json(tmp_path / "x.json", value)
    assert "Straße" in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert folder.read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"{'a': 1}"])
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(Problem, match=r"this is not JSON .*; take another copy") as caught:
        folder.read_json(path)
    assert caught.value.where == str(path)
