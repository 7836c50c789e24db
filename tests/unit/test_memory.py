from __future__ import annotations

import resource

import pytest
import torch

from transduce.train.memory import keep_freed_memory


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
