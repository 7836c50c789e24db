"""Counts how often a program asks a device for what it has computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# What has to know numbers, or how many they are, before it can return.
OPERATIONS: Final = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "_unique2",
    "unique_dim",
}
# What reads the memory of a CPU's tensor without any operation.
METHODS: Final = {"tolist", "numpy", "cpu", "__array__"}


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, count: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        chooses = name in ("index", "index_put", "index_put_") and any(
            part is not None and part.dtype == torch.bool for part in args[1]
        )
        counts = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in OPERATIONS or chooses or counts:
            self.count()
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, count: Callable[[], None]) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in METHODS:
            self.count()
        return func(*args, **(kwargs or {}))


class Asks:
    """How often a device was asked so far."""

    def __init__(self) -> None:
        self.number = 0

    def more(self) -> None:
        """Count one."""
        self.number += 1


@contextmanager
def asks() -> Iterator[Asks]:
    """Count within the block."""
    found = Asks()
    with _Methods(found.more), _Operations(found.more):
        yield found
