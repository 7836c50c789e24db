"""Asking a run to end: noted, answered with the exit code that shells expect, and undone after."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from transduce.problem import Problem
from transduce.train.signals import Broken, Stop, listening, seconds

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 128 + signal.SIGUSR1)]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_is_noted_and_nothing_dies(number: signal.Signals, code: int) -> None:
    with listening() as stop:
        assert not stop
        assert stop.exit_code == 0
        os.kill(os.getpid(), number)
        assert stop
        assert stop.exit_code == code


def test_a_second_interrupt_ends_at_once_but_a_second_term_does_not() -> None:
    with listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.exit_code == 143
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_mean_what_they_meant() -> None:
    before = [signal.getsignal(number) for number in WATCHED]
    with listening("1 h"):
        assert not {signal.getsignal(number) for number in WATCHED} & set(before)
    with pytest.raises(ZeroDivisionError), listening("1 h"):
        raise ZeroDivisionError
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert [signal.getsignal(number) for number in WATCHED] == before


def test_another_thread_cannot_listen_and_is_never_asked() -> None:
    found: list[Stop] = []

    def work() -> None:
        with listening() as stop:
            found.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not found[0]


def test_another_thread_is_not_told_the_time() -> None:
    found: list[Problem] = []

    def work() -> None:
        try:
            with listening("1 h"):
                pass
        except Problem as problem:
            found.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].where == "train.time_limit"


def test_when_the_time_is_over_the_run_is_told_to_end() -> None:
    with listening("0.05 s") as stop:
        begun = time.monotonic()
        while not stop:
            assert time.monotonic() - begun < 30
        assert stop.exit_code == 75


@pytest.mark.parametrize("before", [False, True])
def test_what_has_nothing_to_lose_is_broken_off_and_nothing_else_is(before: bool) -> None:
    with listening() as stop:
        if before:
            os.kill(os.getpid(), signal.SIGTERM)
        reached: list[int] = []

        def work() -> None:
            with stop.at_once():
                reached.append(1)
                os.kill(os.getpid(), signal.SIGTERM)
                reached.append(2)

        with pytest.raises(Broken):
            work()
        assert reached == ([] if before else [1])
        os.kill(os.getpid(), signal.SIGTERM)  # the run is being saved now
        assert stop.exit_code == 143


@pytest.mark.parametrize(
    ("limit", "expected"), [("3 h", 10800), ("90 min", 5400), ("1.5 d", 129600)]
)
def test_times_are_a_number_and_a_unit(limit: str, expected: float) -> None:
    assert seconds(limit) == expected


@pytest.mark.parametrize(
    "limit", ["3", "h", "3h", "three h", "0 s", "-1 h", "nan h", "inf h", "3 H"]
)
def test_what_is_no_time_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=r"is no time; write a number and a unit \(s, min, h, d\)"):
        seconds(limit)
