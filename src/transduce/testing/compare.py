"""What the laws have in common: how to compare, and how to take a batch apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.sequences import Sequences

Sources = Mapping[str, Sequences]

TOLERANCE: Final = 1e-4  # of a log-probability


def require(true: bool | Tensor, law: str) -> None:
    """Raise AssertionError unless ``true`` (``assert`` would be silent under python -O)."""
    if not true:
        raise AssertionError(law)


def same(found: Float[Tensor, "*shape"], wanted: Float[Tensor, "*shape"], law: str) -> None:
    """Raise AssertionError where two tensors of log-probabilities differ."""
    require(found.shape == wanted.shape, f"{law}: shapes {found.shape} and {wanted.shape}")
    close = torch.isclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    if not close.all():
        place = tuple((~close).nonzero()[0].tolist())
        raise AssertionError(f"{law}: at {place} {found[place]} and not {wanted[place]}")


def pick(sources: Sources, rows: Int[Tensor, "M"]) -> dict[str, Sequences]:
    """Return some of the sources, padded no further than the longest of them."""
    picked = {}
    for name, source in sources.items():
        lengths = source.lengths[rows]
        picked[name] = Sequences(source.data[rows, : int(lengths.max())], lengths)
    return picked


def alone(sources: Sources, row: int) -> dict[str, Sequences]:
    """Return one source without padding."""
    some = next(iter(sources.values()))
    return pick(sources, torch.tensor([row], device=some.lengths.device))
