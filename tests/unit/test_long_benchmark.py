"""What a long source costs is measured, and what has no room is told from what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LONG = Path(__file__).resolve().parents[2] / "benchmarks" / "long.py"


def one(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(LONG),
        "--only",
        name,
        "--width",
        "32",
        "--layers",
        "1",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_update_is_measured() -> None:
    done = one("Transformer, full", "--lengths", "512")
    assert done.returncode == 0, done.stderr
    size, seconds = json.loads(done.stdout)
    assert size > 4 * 512**2  # at least one map of attention
    assert seconds > 0


@pytest.mark.parametrize("name", ["Transformer, full", "recurrent"])
def test_what_has_no_room_is_an_answer(name: str) -> None:
    done = one(name, "--lengths", "8192", "--memory", "0.01")
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
