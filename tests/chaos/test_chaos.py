"""What the scripts beside this file do by hand, in short, and that each of them can fail."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import damage
import power
import pytest
from disk import Event, File, Folder, Named, Wrote, after_the_cut

from transduce import folder

HERE = Path(__file__).parent


def test_training_that_is_killed_ends_with_the_same_bits() -> None:
    command = [sys.executable, str(HERE / "kill.py"), "--times", "4", "--each", "50"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    random_moments, changes = done.stdout.strip().split("\n")
    assert random_moments.startswith("4 kills at random moments: ")
    killed, same = (int(word) for word in changes.split() if word.isdigit())
    assert killed == same > 3


def test_a_power_cut_loses_no_checkpoint(tmp_path: Path) -> None:
    moments, tried, wrong = power.trials(tmp_path, draws=2, seed=1)
    assert not wrong, wrong[0]
    assert tried == 3 * moments > 200


def test_a_power_cut_would_lose_what_is_not_forced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "force", lambda path: None)
    _, tried, wrong = power.trials(tmp_path, draws=0, seed=1)
    assert len(wrong) > tried / 3


def test_damage_is_found_and_named_and_the_checkpoint_before_it_used(tmp_path: Path) -> None:
    done, wrong = damage.trials(tmp_path, times=40, seed=1)
    assert not wrong, wrong[0]
    assert set(done.values()) == {40}


def test_damage_would_be_taken_for_sound_without_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_facts", lambda path: {"bytes": path.stat().st_size})
    _, wrong = damage.trials(tmp_path, times=20, seed=1)
    assert any("flipped bits" in line for line in wrong)
    assert not any("cut files" in line for line in wrong)


def test_the_disk_keeps_what_was_forced_and_may_lose_the_rest() -> None:
    top, file = Folder(), File()
    events: list[Event] = [Named(top, "a", file), Wrote(file, b"content")]
    assert after_the_cut(events, 2, None).entries == {}
    seen = set()
    for seed in range(50):
        left = after_the_cut(events, 2, random.Random(seed)).entries.get("a")
        seen.add(left.content if isinstance(left, File) else None)
    assert {None, b"", b"content", bytes(7)} < seen
