"""Updates that are not numbers: what to do about them, and what there is to know about one."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from transduce.blueprint import Blueprint
from transduce.data.batch import Batch
from transduce.data.stream import Position


class FaultsBlueprint(Blueprint):
    """What to do about updates whose loss or gradient is not finite; each is left out."""

    in_a_row: int = Field(3, ge=1)
    """updates left out one after another before the run goes back to its last good checkpoint"""
    cut: float = Field(0.5, gt=0, lt=1)
    """what the rate is multiplied with, from then on, each time the run goes back"""
    returns: int = Field(3, ge=0)
    """times that the run goes back before it gives up"""
    kept: int = Field(3, ge=0)
    """of how many updates weights and batches are kept to be replayed"""


class Fault(NamedTuple):
    """An update that was left out: its loss or its gradient is not finite."""

    step: int  # updates before it
    position: Position  # of its first batch
    batches: list[Batch]  # as they were computed
    total: float  # summed loss
    norm: float  # of the gradient
