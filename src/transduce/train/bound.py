"""How much memory an update may take: more runs out as an error, instead of ending the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import torch
from pydantic import AfterValidator

from transduce.blueprint import quantity
from transduce.problem import Problem

UNITS: Final = {"MB": 10**6, "GB": 10**9}
SHARE: Final = 0.8  # of what is free; the rest is for what is computed between updates
STATUS, MACHINE = Path("/proc/self/status"), Path("/proc/meminfo")
OWN, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# for each version of control groups: where they are, the limit, what is taken, what can be let go
VERSIONS: Final = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@contextmanager
def bounded(most: int | None) -> Iterator[None]:
    """Refuse this process more than ``most`` bytes within the block; None refuses nothing.

    What counts are private pages that may be written to, used or not (RLIMIT_DATA of Linux), so
    that what is refused depends on what was asked for alone.
    """
    if most is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    least = min(limit for limit in (most, soft, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (least, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def bound(setting: str | None, device: torch.device, processes: int) -> int | None:
    """Return how many bytes this process may have while it learns; None: no matter.

    Raises:
        Problem: memory cannot be bound here, or nobody can say how much each process may have.
    """
    if setting is None or (setting == "auto" and device.type != "cpu"):
        return None
    if device.type != "cpu":
        raise Problem("a GPU says by itself that it is full; leave it out", "train.memory")
    if not STATUS.exists():
        raise Problem("only Linux can bound memory; leave it out", "train.memory")
    if setting != "auto":
        return size(setting)
    if processes > 1:
        raise Problem(
            "several processes share what is free; say how much each may have, such as 6 GB",
            "train.memory",
        )
    return _field(STATUS, "VmData:") + int(SHARE * free())


def free() -> int:
    """Return how many bytes the machine, and the control groups of this process, have to give."""
    found = [_field(MACHINE, "MemAvailable:")]
    for line in filter(None, OWN.read_text().split("\n")):
        _, kind, path = line.split(":", 2)
        if kind not in VERSIONS:
            continue
        below, *names = VERSIONS[kind]
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):
            found.extend(_left(GROUPS / below / group, *names))
    return max(0, min(found))


def _left(group: Path, limit: str, taken: str, cached: str) -> Iterator[int]:
    """Yield what a control group has to give, if it has a limit."""
    try:
        used = int((group / taken).read_text()) - _field(group / "memory.stat", cached, 1)
        yield int((group / limit).read_text()) - used
    except (OSError, ValueError):  # it is not there, or its limit is "max"
        return


def _field(path: Path, name: str, unit: int = 1024) -> int:
    """Return a figure in bytes, from a file of a name and a number a line."""
    for line in path.read_text().split("\n"):
        first, *rest = line.split()[:2] or [""]
        if first == name:
            return int(rest[0]) * unit
    return 0


def size(text: str) -> int:
    """Return how many bytes a size such as "6 GB" has.

    Raises:
        ValueError: it is no such size.
    """
    return ceil(quantity(text, UNITS, "size", "6 GB, or auto"))


def _checked(text: str) -> str:
    if text != "auto":
        size(text)
    return text


Memory = Annotated[str, AfterValidator(_checked)]
