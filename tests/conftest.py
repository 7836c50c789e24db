"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

torch.set_num_threads(1)
settings.register_profile("transduce", deadline=None)  # a busy machine is no failure
settings.load_profile("transduce")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of jobs in the background: commands
    signal.signal(signal.SIGINT, signal.default_int_handler)  # that tests start would inherit it


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Find a file or folder of the data beside the repository; skip the test if it is absent."""

    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"needs ../shared/data/{name}")
        return SHARED / name

    return find
