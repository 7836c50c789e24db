"""Training that is killed (kill -9) again and again ends with the same bits.

python tests/chaos/kill.py --times 200   at random moments
python tests/chaos/kill.py --each 1      before each thing that a run does to its folder
python tests/chaos/kill.py --each 25     before every 25th
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with threads cannot be forked

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trials
from safetensors.torch import save_file
from torch import Tensor

from transduce import bundle
from transduce.train import checkpoint

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


class Reaper:
    """Counts what a process does to a folder, and kills it before number ``at``."""

    def __init__(self, run: Path, at: int) -> None:
        self.run, self.at, self.done = str(run), at, 0

    def watch(self) -> None:
        """Look over the shoulder of this process from now on."""
        sync = os.fsync

        def fsync(handle: int) -> None:
            self.step()
            sync(handle)

        def save(tensors: Mapping[str, Tensor], path: Path) -> None:
            if self.done == self.at - 1:  # die with a part of it written
                save_file(dict(tensors), path)
                os.truncate(path, path.stat().st_size // 2)
            self.step()
            save_file(dict(tensors), path)

        for owner, name, does in (
            (os, "fsync", fsync),
            (checkpoint, "save_file", save),
            (bundle, "save_file", save),
        ):
            patch.object(owner, name, does).start()
        sys.addaudithook(self.hear)

    def hear(self, event: str, facts: tuple[Any, ...]) -> None:
        """Take note of what Python is about to do."""
        path, _, flags = facts if event == "open" else ("", "", 0)
        written = flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(self.run)
        if written or event in CHANGES:
            self.step()

    def step(self) -> None:
        """Count one; it may be the last."""
        self.done += 1
        if self.done == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def at_random(home: Path, times: int, seed: int) -> tuple[int, int]:
    """Kill so often at random moments; return how many runs that took, and how many differ."""
    begun = time.monotonic()
    assert trials.end(trials.start(home, "whole")) == 0
    lasts = time.monotonic() - begun
    whole, draw = trials.result(home / "whole"), random.Random(seed)
    killed = runs = wrong = 0
    while killed < times:
        runs += 1
        while True:
            child = trials.start(home, "run")
            time.sleep(draw.uniform(0, lasts) if killed < times else 0)
            if killed < times:
                os.kill(child, signal.SIGKILL)
            code = trials.end(child)
            killed += code == -signal.SIGKILL
            assert code in (0, -signal.SIGKILL), f"exit code {code}"
            if code == 0:
                break
        wrong += trials.result(home / "run") != whole
        shutil.rmtree(home / "run")
    return runs, wrong


def at_each(home: Path, stride: int) -> tuple[int, int]:
    """Kill before every so manieth change of the folder; return how many there are that differ."""
    assert trials.end(trials.start(home, "whole")) == 0
    whole = trials.result(home / "whole")
    killed = wrong = 0
    at = 1
    while True:
        reaper = Reaper(home / "run", at)
        code = trials.end(trials.start(home, "run", reaper.watch))
        if code == 0:  # there are not so many changes
            return killed, wrong
        assert code == -signal.SIGKILL, f"exit code {code} at change {at}"
        killed += 1
        assert trials.end(trials.start(home, "run")) == 0
        if trials.result(home / "run") != whole:
            wrong += 1
            print(f"not the same after a death before change {at}")
        shutil.rmtree(home / "run")
        at += stride


def main() -> None:
    """Do what was asked for, and say what came out; the exit code is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=0, help="kills at random moments")
    parser.add_argument("--each", type=int, default=0, help="kill before every so manieth change")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        trials.prepare(home)
        if asked.times:
            runs, wrong = at_random(home, asked.times, asked.seed)
            print(f"{asked.times} kills at random moments: {runs - wrong} of {runs} runs the same")
            failed += wrong
            shutil.rmtree(home / "whole")
        if asked.each:
            killed, wrong = at_each(home, asked.each)
            print(f"killed before {killed} changes of the folder: {killed - wrong} runs the same")
            failed += wrong
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
