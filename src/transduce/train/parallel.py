"""Processes that train one model together: each learns from its rows of every batch.

All hold the whole model, unless it is shared out (``transduce.train.sharding``). An update adds up
their gradients, once, and is then the same everywhere. Only the first process writes, validates and
talks; what it alone can know it tells the others.
"""

from __future__ import annotations

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import ClassVar, Final, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from transduce.data.batch import Batch
from transduce.problem import Problem
from transduce.train.fitting import Fitting
from transduce.train.moving_average import MovingAverage
from transduce.train.objective import Learner, Loss

LEASH: Final = "TRANSDUCE_LEASH"  # names the file descriptor that closes when the launcher is gone
PATIENCE: Final = timedelta(days=1)  # with the first process: it prepares data and validates
TOLD: Final = "told"  # the first process sets it when it ends with something to tell
BECAUSE_OF_ANOTHER: Final = os.EX_UNAVAILABLE  # exit code of those that leave the telling to others


class Lost(Problem):
    """Another process is gone: nobody's mistake, training again goes on."""

    exit_code: ClassVar[int] = os.EX_TEMPFAIL


class Sums(NamedTuple):
    """What an update comes to in all processes together."""

    total: Float[Tensor, ""]  # of the losses
    nll: Float[Tensor, ""]
    norm: Float[Tensor, ""]  # of the gradient
    told: list[int]  # by each process beside


class Group(ABC):
    """The processes that train together, as one of them sees them."""

    shared: ClassVar[bool] = False  # whether each of them holds a share of the model alone
    fitting: ClassVar[type[Fitting]] = Fitting  # how batches are computed

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, validates and talks."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """Return a seed for what every process is to draw for itself; the first keeps its own."""
        return seed + 10_000_019 * self.rank

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the others enter the block after the first process has left it."""
        if not self.first:
            self.tell(0)
        yield
        if self.first:
            self.tell(0)

    @property
    @abstractmethod
    def threads(self) -> int | None:
        """The threads that each process should use; None: what torch would."""

    @abstractmethod
    def place(self, device: torch.device) -> torch.device:
        """Return which device of a kind belongs to this process."""

    @abstractmethod
    def shares(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the rows of each batch that this process learns from, where there are any."""

    def spread(self, learner: Learner) -> Learner:
        """Return what this process holds of a learner: all of it."""
        return learner

    @abstractmethod
    def gather(self, learner: Learner, model: nn.Module, average: MovingAverage | None) -> None:
        """Give ``model``, in the first process, what was spread of it, or the average."""

    @abstractmethod
    def sum(
        self, parameters: Iterable[nn.Parameter], losses: Sequence[Loss], told: int = 0
    ) -> Sums:
        """Make every gradient the sum of those of all processes; add up losses as well.

        What this process has to tell beside is a number below 2 ** 24.
        """

    @abstractmethod
    def tell(self, value: float) -> float:
        """Return the first process's value, for as long as it may take to have it."""

    @abstractmethod
    def most(self, value: int) -> int:
        """Return the largest of the processes' values."""

    @abstractmethod
    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""


class Alone(Group):
    """One process: nothing is shared and nobody is asked."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    @property
    def threads(self) -> int | None:
        """Leave it to torch."""
        return None

    def place(self, device: torch.device) -> torch.device:
        """Return ``device``."""
        return device

    def shares(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches."""
        yield from batches

    def gather(self, learner: Learner, model: nn.Module, average: MovingAverage | None) -> None:
        """Do nothing."""

    def sum(
        self, parameters: Iterable[nn.Parameter], losses: Sequence[Loss], told: int = 0
    ) -> Sums:
        """Return the sum of the losses."""
        total, nll = (torch.stack(values).sum() for values in zip(*losses, strict=True))
        return Sums(total, nll, _norm(parameters), [told])

    def tell(self, value: float) -> float:
        """Return ``value``."""
        return value

    def most(self, value: int) -> int:
        """Return ``value``."""
        return value

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Do nothing."""


ALONE: Final = Alone()


class Together(Group):
    """One of several processes; torch.distributed carries what they say."""

    def __init__(self) -> None:
        super().__init__(dist.get_rank(), dist.get_world_size())
        self._local = int(os.environ.get("LOCAL_RANK", "0"))
        self._beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._patient = dist.new_group(backend="gloo", timeout=PATIENCE)

    @property
    def threads(self) -> int | None:
        """The cores of this machine, divided evenly."""
        return max(1, _cores() // self._beside)

    def place(self, device: torch.device) -> torch.device:
        """Return the GPU of this process's own number.

        Raises:
            Problem: there are fewer GPUs than processes.
        """
        if device.type != "cuda":
            return device
        if self._local >= (count := torch.cuda.device_count()):
            what = f"{self._beside} processes for {count} GPUs; start one process for each GPU"
            raise Problem(what, "train.device")
        torch.cuda.set_device(self._local)
        return torch.device("cuda", self._local)

    def shares(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Deal out the rows of each batch in turn: neighbours are of like length."""
        for batch in batches:
            rows = torch.arange(len(batch))[self.rank :: self.size]
            if len(rows):
                yield batch.take(rows)

    def gather(self, learner: Learner, model: nn.Module, average: MovingAverage | None) -> None:
        """Do nothing."""

    def sum(
        self, parameters: Iterable[nn.Parameter], losses: Sequence[Loss], told: int = 0
    ) -> Sums:
        """Add up gradients and losses in one message, in which each process has a place to tell.

        A parameter that no process has a gradient for is left without one, as in one process.
        """
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        device = learned[0].device
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learned]
        used = torch.tensor([float(p.grad is not None) for p in learned], device=device)
        zero = torch.zeros((), device=device)
        own = [torch.stack([zero, *values]).sum() for values in columns(losses)]
        message = torch.cat(
            [*(g.flatten() for g in gradients), used, torch.stack(own), self.said(told, device)]
        )
        with talking():
            dist.all_reduce(message)
        *summed, used, total, places = torch.split(
            message, [*(p.numel() for p in learned), len(learned), 2, self.size]
        )
        for parameter, gradient, known in zip(learned, summed, used.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if known else None
        minimised, nll = total.unbind()
        return Sums(minimised, nll, _norm(learned), heard(places))

    def said(self, told: int, device: torch.device) -> Float[Tensor, "N"]:
        """Return what this process tells, in its place among all of them."""
        places = torch.zeros(self.size, device=device)
        places[self.rank] = told
        return places

    def tell(self, value: float) -> float:
        """Return the first process's value; wait for it up to ``PATIENCE``."""
        message = torch.tensor(value, dtype=torch.float64)
        with talking():
            dist.broadcast(message, 0, group=self._patient)
        return message.item()

    def most(self, value: int) -> int:
        """Return the largest of the processes' values."""
        message = torch.tensor(value)
        with talking():
            dist.all_reduce(message, dist.ReduceOp.MAX)
        return int(message)

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        for tensor in tensors:
            with talking():
                dist.broadcast(tensor.data, 0)


@contextmanager
def joined(device: torch.device, kind: type[Together] = Together) -> Iterator[Group]:
    """Return the group that the environment speaks of, as torchrun sets it; leave it together.

    RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT are all that is
    read, so that anything may start the processes.

    Raises:
        Problem: the others cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    leashed = _watch_launcher()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        group = kind()
    except (RuntimeError, ValueError) as error:
        raise Problem(f"the other processes cannot be reached: {_reason(error)}") from error
    try:
        yield group
        group.tell(0)  # a launcher takes the first that leaves for the end of all
    except Lost:
        if leashed or not group.first:  # the launcher, or the first process, says so
            raise SystemExit(BECAUSE_OF_ANOTHER) from None
        raise
    except Problem as problem:
        if group.first:
            store.set(TOLD, "")
        elif _told(store):
            raise SystemExit(problem.exit_code) from None
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def talking() -> Iterator[None]:
    """Turn what torch raises when a connection breaks into an error for people."""
    try:
        yield
    except RuntimeError as error:
        what = f"another process of this training is gone ({_reason(error)})"
        raise Lost(f"{what}; train again to go on from the last checkpoint") from error


def _told(store: dist.Store) -> bool:
    """Return whether the first process has a problem too: it is the same, and told once."""
    try:
        store.wait([TOLD], timedelta(seconds=5))
    except dist.DistStoreError:  # it has none
        return False
    except RuntimeError:  # it is gone, and the store with it
        return True
    return True


def _reason(error: Exception) -> str:
    """Return the first sentence of an error without the place in torch's own source."""
    return str(error).split("\n")[0].rpartition("] ")[2].partition(". ")[0]


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of the gradient."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def heard(places: Float[Tensor, "N"]) -> list[int]:
    """Return what each process has told."""
    return list(map(int, places.tolist()))


def columns(losses: Sequence[Loss]) -> tuple[list[Tensor], list[Tensor]]:
    """Return what is minimised and what is told of each."""
    return [loss.total for loss in losses], [loss.nll for loss in losses]


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _watch_launcher() -> bool:
    """Ask this process to stop when its launcher is gone; return whether it has ours."""
    leash = os.environ.get(LEASH)
    if leash is None:
        return False

    def wait() -> None:
        os.read(int(leash), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
    return True
