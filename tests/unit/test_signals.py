"""Asking a run to end: noted, answered with the exit code that shells expect, and undone after."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from transduce.train.signals import Stop, listening

WATCHED = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
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
    with listening():
        assert [signal.getsignal(number) for number in WATCHED] != before
    with pytest.raises(ZeroDivisionError), listening():
        raise ZeroDivisionError
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
