"""What a search is: a frozen value that can be called."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Int
from torch import Tensor

from transduce.blueprint import Part
from transduce.problem import Problem
from transduce.search.hypotheses import Hypotheses
from transduce.search.scorer import Scorer


class Batch(NamedTuple):
    """Sources that are read together.

    ``keys`` are what the random numbers for each source depend on; without them all sources share
    theirs.
    """

    memory: Any
    prompt: Int[Tensor, "B P"]
    limit: Int[Tensor, "B"]
    keys: Int[Tensor, "B"] | None = None


def require_room(limit: Int[Tensor, "B"]) -> None:
    """Stop where a source may not be answered at all.

    Raises:
        ValueError: a limit is below 1.
    """
    if limit.min() < 1:
        raise ValueError("a source may be answered with 0 tokens; limits begin at 1")


class SearchBlueprint(Part):
    """Slot for a search; its blueprint is the search itself."""

    eos: ClassVar[int] = 2  # the symbol that ends a hypothesis, the same in every vocabulary
    shares: ClassVar[bool] = False  # it takes symbols of the source for those of the answer
    aided: ClassVar[bool] = False  # it asks a small model beside the model
    distinct: ClassVar[bool] = True  # no two hypotheses of a source are equal

    @abstractmethod
    def __call__(
        self,
        scorer: Scorer,
        memory: Any,
        prompt: Int[Tensor, "B P"],
        limit: Int[Tensor, "B"],
    ) -> Hypotheses:
        """Look for the best that ``scorer`` has to say about the sources behind ``memory``.

        ``prompt`` (at least one symbol: the beginning) is read first and not returned; ``limit``
        (at least 1) is the most tokens each source may be answered with, eos included. The answer
        for a source depends on nothing else in the batch.

        Raises:
            Problem: the scorer answers NaN.
            ValueError: a limit is below 1.
        """

    def unfold(
        self,
        scorer: Scorer,
        memory: Any,
        prompt: Int[Tensor, "1 P"],
        limit: Int[Tensor, "1"],
        keys: Int[Tensor, "1"] | None = None,
    ) -> Iterator[list[int]]:
        """Yield the best answer to one source part by part, each as soon as it is decided.

        Raises:
            Problem: this search decides on whole answers.
        """
        raise Problem(
            "it decides on whole answers, so that there is nothing to show before; search greedily",
            f"search.kind: {self.kind}",
        )

    def with_answers(self, count: int) -> SearchBlueprint:
        """Return the search so that it returns at least ``count`` hypotheses, if there are so many.

        Raises:
            Problem: it finds one only.
        """
        if count > 1:
            raise Problem("this search finds one answer only; for alternatives use beam search")
        return self
