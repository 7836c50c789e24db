"""Stopping a run from outside: the update is finished, the run is saved, then it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from transduce.train.parallel import Group


class Stop:
    """Which signal has asked for an end, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def asked(self, group: Group) -> bool:
        """Return, the same in all processes of a group, whether any of them was asked to end."""
        number = group.most(self.signal or 0)
        if number:
            self.signal = signal.Signals(number)
        return number > 0

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM: 128 and the number of the signal."""
        return 128 + self.signal if self.signal else 0


@contextmanager
def listening() -> Iterator[Stop]:
    """Note SIGINT and SIGTERM instead of dying of them; a second SIGINT interrupts at once.

    Only the main thread can listen; elsewhere nothing is ever asked for.
    """
    stop = Stop()

    def note(number: int, _: FrameType | None) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
