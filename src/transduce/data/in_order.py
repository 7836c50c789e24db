"""Work for several processes whose results come in the order of the work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from transduce.problem import Problem

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def in_order(work: Callable[[T], R], things: Iterator[T], processes: int) -> Iterator[R]:
    """Yield what ``work`` makes of each thing, in order; a few are worked on at the same time.

    With one process it is ``map``. Otherwise each process has one thing at a time, so memory does
    not grow, and ends with this one, however that ends.

    Raises:
        Problem: a process was ended from outside.
    """
    if processes < 2:
        yield from map(work, things)
        return
    problem = None
    with closing(_Workers(work, processes)) as workers:
        while True:
            try:
                thing = next(things)
            except StopIteration:
                break
            except Problem as found:  # what came before it comes first
                problem = found
                break
            if workers.waiting == processes:
                yield workers.receive()
            workers.send(thing)
        while workers.waiting:
            yield workers.receive()
    if problem is not None:
        raise problem


class _Workers:
    """Processes with a pipe each; those are forks, which have all that ``work`` needs."""

    def __init__(self, work: Callable[[Any], Any], processes: int) -> None:
        self.sent = self.received = 0
        context = multiprocessing.get_context("fork")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(processes):
            mine, theirs = context.Pipe()
            arguments = (work, theirs, [*self.pipes, mine])
            process = context.Process(target=_serve, args=arguments, daemon=True)
            with warnings.catch_warnings():  # forks of processes with threads: these use none
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    @property
    def waiting(self) -> int:
        return self.sent - self.received

    def send(self, thing: object) -> None:
        self.pipes[self.sent % len(self.pipes)].send(thing)
        self.sent += 1

    def receive(self) -> Any:
        try:
            result, error = self.pipes[self.received % len(self.pipes)].recv()
        except (EOFError, OSError):
            raise Problem(
                "a process that was encoding was ended; see whether there is enough memory"
            ) from None
        self.received += 1
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join()


def _serve(work: Callable[[Any], Any], pipe: Connection, others: list[Connection]) -> None:
    """Answer until the pipe is closed, which it also is when the process at its end is killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are for the process at the other end
    for other in others:  # as long as one copy of an end is open, nobody sees that it was closed
        other.close()
    while True:
        try:
            thing = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = work(thing), None
        except Exception as error:
            answer = None, error
        try:
            pipe.send(answer)
        except OSError:
            return
