from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
import torch

from transduce.train.memory import forget_shapes, keep_freed_memory


def borrow() -> int:
    """Use a large block 20 times; return how many pages the system has lent for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(9 << 20)  # 9,216 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_large_block_is_lent_again_without_the_system() -> None:
    if not keep_freed_memory():
        pytest.skip("no glibc here")
    borrow()
    assert borrow() < 9216


def test_large_blocks_are_given_back_where_memory_is_short() -> None:
    if not keep_freed_memory(large=False):
        pytest.skip("no glibc here")
    block = torch.ones(64 << 20)
    held = resident()
    del block
    assert resident() < held - (200 << 20)


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    forget_shapes()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("LRU_CACHE_CAPACITY")
    forget_shapes()
    assert os.environ["LRU_CACHE_CAPACITY"] == "1"
