"""Tensors whose rows are shared out over processes, in memory and in files.

A file of a process holds its rows of every tensor under its name, and all files of a checkpoint one
after the other hold whole tensors. So who reads takes the rows that it wants, whatever the number
of processes was and is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch
from safetensors import safe_open
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

PLAIN: Final = (Tensor, nn.Parameter)


def is_shared(value: Tensor) -> TypeGuard[DTensor]:
    """Whether other processes have other rows of a tensor."""
    if type(value) in PLAIN:  # always, unless a model is shared out: nothing has to be imported
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def own(value: Tensor) -> Tensor:
    """Return the rows of a tensor that this process has, in the same storage."""
    return value.to_local().detach() if is_shared(value) else value


def whole(value: Tensor) -> Tensor:
    """Return all rows of a tensor; all processes have to ask."""
    found: Tensor = value.full_tensor().detach() if is_shared(value) else value
    return found


def beside(rows: Tensor, parameter: Tensor) -> Tensor:
    """Return rows that belong to those of a parameter as a tensor that is shared out like it."""
    if not is_shared(parameter) or rows.shape != own(parameter).shape:
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        rows,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


class Saved:
    """Tensors in the files of one process or of several."""

    def __init__(self, files: Sequence[Any]) -> None:
        self._parts: dict[str, list[Any]] = {}
        for file in files:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                self._parts.setdefault(name, []).append(file)

    @property
    def names(self) -> Iterator[str]:
        """What there is."""
        return iter(self._parts)

    def read(self, name: str, parameter: Tensor | None = None) -> Tensor:
        """Return a tensor, or if it is of a parameter's shape the rows that this process has of it.

        A single number is the same in all files.
        """
        slices = [file.get_slice(name) for file in self._parts[name]]
        shape = slices[0].get_shape()
        if not shape:
            single: Tensor = self._parts[name][0].get_tensor(name)
            return single
        counts = [one.get_shape()[0] for one in slices]
        first, last = 0, sum(counts)
        if parameter is not None and list(parameter.shape) == [last, *shape[1:]]:
            first, last = _rows(parameter)
        found = []
        for one, count in zip(slices, counts, strict=True):
            if first < count and last > 0:
                found.append(one[max(first, 0) : min(last, count)])
            first, last = first - count, last - count
        if not found:
            return slices[0][:0]  # type: ignore[no-any-return]
        return torch.cat(found) if len(found) > 1 else found[0]

    def all(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return every tensor by name: the rows of the parameter of that name, if there is one."""
        return {name: self.read(name, parameters.get(name)) for name in self.names}


@contextmanager
def saved(folder: Path, name: str, shares: int) -> Iterator[Saved]:
    """Return what is in a file, or in those of so many processes."""
    ranks = range(shares) if shares > 1 else [None]
    with ExitStack() as files:
        paths = [folder / file_name(name, rank, shares) for rank in ranks]
        yield Saved([files.enter_context(safe_open(path, "pt")) for path in paths])


def file_name(name: str, rank: int | None, size: int) -> str:
    """Return what the file of a process is called; of none: the one file that holds all."""
    return name if rank is None else f"-{rank + 1}-of-{size}.".join(name.split("."))


def _rows(parameter: Tensor) -> tuple[int, int]:
    """Return the first of the rows that this process has, and the one behind the last."""
    if not is_shared(parameter):
        return 0, len(parameter)
    mesh = parameter.device_mesh
    each = -(-len(parameter) // mesh.size())  # as torch.chunk deals them out
    return (
        min(len(parameter), each * mesh.get_local_rank()),
        min(len(parameter), each * (mesh.get_local_rank() + 1)),
    )
