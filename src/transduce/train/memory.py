"""How the process treats the memory that it has freed."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

TRIM_THRESHOLD: Final = -1  # the numbers of these settings in glibc's malloc.h
MMAP_THRESHOLD: Final = -3
MMAP_MAX: Final = -4
ALL: Final = {TRIM_THRESHOLD: 2**31 - 1, MMAP_MAX: 0}
# 32 MB is the most that glibc takes for this threshold
SMALL: Final = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}


def keep_freed_memory(large: bool = True) -> bool:
    """Let glibc keep what is freed for the next update; return whether it was asked to.

    By default large blocks go back to the system, which has to clear each of their pages before it
    lends them again: 5 % of a Transformer's updates on a CPU in float32, 2 % in bfloat16. The peak
    stays the same with sentences; with sources of thousands of symbols it can double. Unless
    ``large``, blocks of 32 MB and more go back.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        setting = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    done = [setting(*choice) for choice in (ALL if large else SMALL).items()]
    return all(done)


def forget_shapes() -> None:
    """Let torch not keep what it prepares for bf16 matrix products of each shape.

    By default it does for a thousand shapes, and batches come in all of them: 0.4 GB after 24
    updates of a Transformer, at no gain in speed. Call it before the first update; what the user
    has set stays.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")
