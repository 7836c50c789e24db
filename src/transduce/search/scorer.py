"""The three verbs that every search knows, and one that some scorers have besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from transduce.problem import Problem
from transduce.sequences import Sequences


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores token strings: a model, an ensemble, a language model, a constraint.

    ``encode`` and ``start`` return trees (see ``transduce.tree``); search reorders them and never
    looks inside.
    """

    def encode(self, sources: Mapping[str, Sequences]) -> Any:
        """Read the sources once."""

    def start(self, memory: Any, width: int = 1, capacity: int | None = None) -> Any:
        """Return the state before any token, ``width`` rows for every source."""

    def extend(self, tokens: Int[Tensor, "N T"], state: Any) -> tuple[Float[Tensor, "N T V"], Any]:
        """Read T tokens in every row; return the log-probabilities of what follows each of them."""


@runtime_checkable
class Quotable(Protocol):
    """A scorer that still knows the symbols of its sources."""

    def quote(self, memory: Any) -> Sequences:
        """Return the sources behind ``memory``."""


def quote(scorer: Scorer, memory: Any) -> Sequences:
    """Return the sources that a scorer has read.

    Raises:
        Problem: it cannot say what they were.
    """
    if not isinstance(scorer, Quotable):
        name = type(scorer).__name__
        raise Problem(f"{name} does not say what its sources were; choose another", "search")
    return scorer.quote(memory)
