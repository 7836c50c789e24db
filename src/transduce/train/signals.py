"""Stopping a run from outside: the update is finished, the run is saved, then it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

from pydantic import AfterValidator

from transduce.blueprint import quantity
from transduce.problem import Problem
from transduce.train.parallel import Group

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Broken(BaseException):
    """A signal has broken off what has nothing to lose."""


class Stop:
    """Which signal has asked for an end, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._breaks = False

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
        """75 when the time is over; else 128 and the number of the signal, as shells have it."""
        if self.signal == signal.SIGALRM:
            return UNFINISHED
        return 128 + self.signal if self.signal else 0

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal break off what is in the block, where nothing is lost by it.

        Raises:
            Broken: an end has been asked for, before the block or in it.
        """
        self._breaks = True
        try:
            if self:
                raise Broken
            yield
        finally:
            self._breaks = False

    def note(self, number: int, _: FrameType | None) -> None:
        """Note that a signal came.

        Raises:
            Broken: it came where nothing is lost by ending at once.
            KeyboardInterrupt: it is not the first, and somebody pressed Ctrl-C.
        """
        if self and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number)
        if self._breaks:
            self._breaks = False
            raise Broken


@contextmanager
def listening(limit: str | None = None) -> Iterator[Stop]:
    """Note SIGINT, SIGTERM and SIGUSR1 instead of dying of them; a second SIGINT ends at once.

    When the time ``limit`` is over, SIGALRM comes, which is noted too. Only the main thread can
    listen; elsewhere nothing is ever asked for.

    Raises:
        Problem: there is a limit, and this is another thread.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        if limit:
            what = "only the main thread of a process is told the time; leave it out here"
            raise Problem(what, "train.time_limit")
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, *([signal.SIGALRM] if limit else [])]
    before = {number: signal.signal(number, stop.note) for number in numbers}
    try:
        if limit:
            signal.setitimer(signal.ITIMER_REAL, seconds(limit))
        yield stop
    finally:
        if limit:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def seconds(limit: str) -> float:
    """Return how many seconds a time such as "90 min" has.

    Raises:
        ValueError: it is no such time.
    """
    return quantity(limit, UNITS, "time", "3 h")


def _checked(limit: str) -> str:
    seconds(limit)
    return limit


TimeLimit = Annotated[str, AfterValidator(_checked)]
