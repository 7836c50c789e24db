"""Starting several processes on this machine that train together, and ending them together."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from transduce.problem import Problem
from transduce.train.parallel import BECAUSE_OF_ANOTHER, LEASH, Lost
from transduce.train.progress import Show
from transduce.train.signals import Stop, listening

GRACE: Final = 15.0  # seconds for the others to notice that one is gone
LOOK: Final = 0.05  # seconds between two looks at the processes

Processes = Sequence[subprocess.Popen[bytes]]


def launched(wanted: int) -> bool:
    """Return whether this is one of several processes already, or the only one wanted.

    Raises:
        Problem: another number of processes was started.
    """
    found = os.environ.get("WORLD_SIZE")
    if wanted > 1 and found not in (None, str(wanted)):
        what = f"{found} processes were started from outside; leave this option out"
        raise Problem(what, "--processes")
    return wanted == 1 or found is not None


def launch(count: int, show: Show) -> int:
    """Run this command once more in each of ``count`` processes; return the exit code.

    It is that of one process. If one dies, the others end, and the code is 75: try again. A signal
    is passed on; if this process dies, the others save and stop.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    leash, held = os.pipe()
    with listening() as stop:
        processes = [_start(rank, count, store.port, leash) for rank in range(count)]
        try:
            ended = _wait(processes, stop)
        except KeyboardInterrupt:
            for process in processes:
                process.send_signal(signal.SIGINT)
            _wait(processes, Stop(), time.monotonic() + GRACE)
            raise
        finally:
            for process in processes:
                process.kill()
                process.wait()
            os.close(leash)
            os.close(held)
    return _verdict(ended, count, stop, show)


def _start(rank: int, count: int, port: int, leash: int) -> subprocess.Popen[bytes]:
    """Start one process; a terminal's Ctrl-C does not reach it but through this one."""
    facts: dict[str, object] = {"RANK": rank, "LOCAL_RANK": rank, LEASH: leash}
    facts |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    facts |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    facts |= {"TORCHELASTIC_USE_AGENT_STORE": True}  # all meet at this process
    return subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        stdin=subprocess.DEVNULL,
        env=os.environ | {name: str(value) for name, value in facts.items()},
        pass_fds=[leash],
        start_new_session=True,
    )


def _wait(processes: Processes, stop: Stop, deadline: float = math.inf) -> dict[int, int]:
    """Pass on a signal and wait for the end of all; return exit codes by number, first end first.

    Once one has failed the others have a while to end by themselves.
    """
    ended: dict[int, int] = {}
    asked = False
    while len(ended) < len(processes) and time.monotonic() < deadline:
        time.sleep(LOOK)
        for number, process in enumerate(processes):
            if number not in ended and (code := process.poll()) is not None:
                ended[number] = code
                if code:
                    deadline = min(deadline, time.monotonic() + GRACE)
        if stop.signal and not asked:
            asked = True
            for process in processes:
                process.send_signal(stop.signal)
    return ended


def _verdict(ended: Mapping[int, int], count: int, stop: Stop, show: Show) -> int:
    """Return the exit code of all; say what no process can have said."""
    failed = {number: code for number, code in ended.items() if code}
    if not failed:
        return 0
    others = {number: code for number, code in failed.items() if code != BECAUSE_OF_ANOTHER}
    number, code = next(iter((others or failed).items()))
    if stop.signal and code in (-stop.signal, stop.exit_code):
        return stop.exit_code
    if code > 0 and others:
        return code
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else "lost the others"
    again = "train again to go on from the last checkpoint"
    show.say(f"process {number + 1} of {count} {how}; {again}")
    return Lost.exit_code
