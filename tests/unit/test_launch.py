"""What starts several processes ends them together, with the exit code that one would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from transduce.problem import Problem
from transduce.train import launch as launching
from transduce.train.launch import launch, launched
from transduce.train.progress import Show

LAUNCHER = """
import sys
from transduce.train import launch as launching
from transduce.train.progress import Show
launching.GRACE = 1.0
sys.orig_argv = [sys.executable, *sys.argv[1:]]
sys.exit(launching.launch(2, Show()))
"""
STUB = """
import os, signal, sys, threading, time
rank = os.environ["RANK"]
def say(text):
    with open("said." + rank, "a") as file:
        file.write(text + "\\n")
"""


def ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> int:
    """Launch two processes of a small program that knows ``rank``; return the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", STUB + program])
    monkeypatch.setattr(launching, "GRACE", 1.0)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return launch(2, Show())


def test_each_is_told_who_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    program = f"say(' '.join(os.environ[name] for name in {names}))"
    assert ends(monkeypatch, tmp_path, program) == 0
    assert (tmp_path / "said.0").read_text() == "2 0 2 127.0.0.1\n"
    assert (tmp_path / "said.1").read_text() == "2 1 2 127.0.0.1\n"


@pytest.mark.parametrize(
    ("program", "code", "told"),
    [
        ("sys.exit(2 if rank == '0' else 69)", 2, ""),
        ("sys.exit(1 if rank == '1' else 69)", 1, ""),
        ("os.kill(os.getpid(), 9) if rank == '1' else sys.exit(69)", 75, "process 2 of 2 was ended "
         "by SIGKILL"),
        ("os.kill(os.getpid(), 9) if rank == '0' else time.sleep(60)", 75, "process 1 of 2 was "
         "ended by SIGKILL"),
        ("sys.exit(69)", 75, "of 2 lost the others"),
        ("sys.exit(75)", 75, ""),
        ("sys.exit(143)", 143, ""),
    ],
)  # fmt: skip
def test_the_exit_code_is_that_of_the_cause(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    program: str,
    code: int,
    told: str,
) -> None:
    begun = time.monotonic()
    assert ends(monkeypatch, tmp_path, program) == code
    assert time.monotonic() - begun < 30
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == bool(told)


WAITING = """
done = threading.Event()
def note(number, _):
    say(signal.Signals(number).name)
    done.set()
signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGINT, note)
leash = os.environ["TRANSDUCE_LEASH"]
def wait():
    os.read(int(leash), 1)
    say("alone")
    done.set()
threading.Thread(target=wait, daemon=True).start()
say("ready")
while not done.is_set():
    time.sleep(0.01)
sys.exit(CODE)
"""


def begun(tmp_path: Path, code: int) -> subprocess.Popen[bytes]:
    """Start a launcher of two processes that wait for a signal and then end with a code."""
    program = STUB + WAITING.replace("CODE", str(code))
    command = [sys.executable, "-c", LAUNCHER, "-c", program]
    environment = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    await_lines(tmp_path, "ready")
    return process


def await_lines(tmp_path: Path, line: str) -> None:
    deadline = time.monotonic() + 120
    for name in ("said.0", "said.1"):
        while not (tmp_path / name).exists() or line not in (tmp_path / name).read_text():
            assert time.monotonic() < deadline, name
            time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = begun(tmp_path, code)
    process.send_signal(number)
    assert process.wait(60) == code
    for name in ("said.0", "said.1"):
        assert (tmp_path / name).read_text() == f"ready\n{number.name}\n"


def test_processes_learn_that_their_launcher_is_gone(tmp_path: Path) -> None:
    process = begun(tmp_path, 0)
    process.kill()
    process.wait(60)
    await_lines(tmp_path, "alone")


def test_what_was_started_from_outside_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched(1)
    assert not launched(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched(2)
    with pytest.raises(Problem, match="2 processes were started from outside"):
        launched(3)
