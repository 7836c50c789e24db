"""Processes that find each other as torchrun's do, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from transduce.cli import main

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "transduce.cli",
        "transduce.recipe",
        "transduce.train.launch",
        "torch._dynamo",
        "torch.distributed.fsdp",
        "pytest",
    ]
)


class Together:
    """Calls of one function that have begun, one in each process; what they say goes to a file."""

    def __init__(
        self, size: int, log: Path, function: Callable[..., None], *arguments: object
    ) -> None:
        self.log = log
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        facts: dict[str, object] = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        facts |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.store.port}
        facts |= {"TORCHELASTIC_USE_AGENT_STORE": True}
        self.processes: list[ForkServerProcess] = []
        for rank in range(size):
            own = {"RANK": rank, "LOCAL_RANK": rank} | facts
            strings = {name: str(value) for name, value in own.items()}
            process = CONTEXT.Process(target=_enter, args=(strings, log, function, arguments))
            process.start()
            self.processes.append(process)

    def codes(self) -> list[int | None]:
        """Wait for the end of all; return their exit codes."""
        for process in self.processes:
            process.join(120)
            process.kill()
        return [process.exitcode for process in self.processes]

    @property
    def alive(self) -> bool:
        """Whether any of them has not ended."""
        return any(process.is_alive() for process in self.processes)

    @property
    def said(self) -> str:
        """What they have said so far."""
        return self.log.read_text(encoding="utf-8")


def _enter(
    facts: dict[str, str], log: Path, function: Callable[..., None], arguments: Sequence[Any]
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= facts
    torch.set_num_threads(1)
    function(*arguments)


def command(folder: Path, arguments: Sequence[str]) -> None:
    """Run the command line in a folder."""
    os.chdir(folder)
    os.environ["TRANSDUCE_CACHE"] = str(folder / "cache")
    sys.argv = ["transduce", *arguments]
    main()


def wait(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
