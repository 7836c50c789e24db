"""What a metric is: statistics that add up over segments, and a score of their sum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from transduce import __version__
from transduce.blueprint import Part
from transduce.problem import Problem

References = Sequence[Sequence[str]]  # for each segment, one reference or more

SEED = 12345  # the one sacrebleu uses


class Metric(ABC):
    """Scores a corpus by statistics of its segments, so that resampling never scores text again."""

    name: str  # as it is printed
    higher_is_better: bool

    def statistics(
        self, hypotheses: Sequence[str], references: References
    ) -> Float[np.ndarray, "segments k"]:
        """Return the statistics of every segment; those of a corpus are their sum.

        Raises:
            Problem: the numbers of hypotheses and references differ, or a segment has no reference.
        """
        check(hypotheses, references)
        return np.array(self.measure(hypotheses, references), dtype=np.float64)

    @abstractmethod
    def measure(
        self, hypotheses: Sequence[str], references: References
    ) -> Sequence[Sequence[float]]:
        """Return one row of statistics for each segment of a checked corpus."""

    @abstractmethod
    def score(self, total: Float[np.ndarray, "k"]) -> float:
        """Return the score of a corpus from the sum of its statistics."""

    def segment_score(self, statistics: Float[np.ndarray, "k"]) -> float:
        """Return the score of one segment, where that is not the score of a corpus of one."""
        return self.score(statistics)

    @abstractmethod
    def signature(self, references: References, resamples: int = 0, seed: int = SEED) -> str:
        """Return all that another person needs to get the same number; 0 ``resamples`` is none."""


class MetricBlueprint(Part):
    """Slot for a metric."""

    @abstractmethod
    def build(self) -> Metric:
        """Make the metric.

        Raises:
            Problem: a package that it needs is not installed.
        """


def check(hypotheses: Sequence[str], references: References) -> None:
    """Refuse a corpus that cannot be scored.

    Raises:
        Problem: it is empty, its two sides differ in number, or a segment has no reference.
    """
    if len(hypotheses) != len(references):
        raise Problem(
            f"{len(hypotheses)} hypotheses, but references for {len(references)} segments;"
            " give one hypothesis for each segment"
        )
    if not hypotheses:
        raise Problem("there is no segment to score; give at least one")
    for number, segment in enumerate(references, start=1):
        if isinstance(segment, str):
            raise Problem(f"segment {number}: its references are a string; put them in a list")
        if not segment:
            raise Problem(f"segment {number} has no reference; give at least one or leave it out")


def reference_count(references: References) -> int | None:
    """Return how many references each segment has, or None if that varies."""
    counts = {len(segment) for segment in references}
    return counts.pop() if len(counts) == 1 else None


def describe(settings: Mapping[str, str], references: References, resamples: int, seed: int) -> str:
    """Return a signature in the manner of sacrebleu's, for metrics that sacrebleu does not have."""
    facts = {"nrefs": str(reference_count(references) or "var")}
    if resamples:
        facts |= {"bs": str(resamples), "seed": str(seed)}
    facts |= {**settings, "transduce": __version__}
    return "|".join(f"{key}:{value}" for key, value in facts.items())
