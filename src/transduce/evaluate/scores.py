"""Scores with what belongs to them: an interval, a signature, and whether one beats another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from transduce import __version__
from transduce.evaluate.metrics import SEED, Metric, References
from transduce.problem import Problem

ScoreOfTotal = Callable[[Float[np.ndarray, "k"]], float]


@dataclass(frozen=True)
class Score:
    """A number that can be compared; ``dataclasses.asdict`` makes a JSON object of it.

    ``low`` and ``high`` bound the middle 95 of a hundred resampled corpora; None if none was drawn.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    signature: str
    segments: int
    higher_is_better: bool

    def __str__(self) -> str:
        digits = _digits(self.value)
        interval = (
            f" [{self.low:.{digits}f}, {self.high:.{digits}f}]" if self.low is not None else ""
        )
        return f"{self.name} {self.value:.{digits}f}{interval} {self.signature}"


@dataclass(frozen=True)
class Comparison:
    """Two systems on one corpus: ``difference`` is ``value - baseline``, with its 95 % interval.

    ``p`` is how often a difference as large, either way, would come about by the choice of the
    corpus alone if the systems were equally good.
    """

    name: str
    value: float
    baseline: float
    difference: float
    low: float
    high: float
    p: float
    signature: str

    def __str__(self) -> str:
        digits = _digits(max(self.value, self.baseline))
        return (
            f"{self.name} {self.value:.{digits}f} - {self.baseline:.{digits}f}"
            f" = {self.difference:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"
            f" p={self.p:.3f} {self.signature}"
        )


def evaluate(
    metrics: Sequence[Metric],
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Score]:
    """Score a corpus by each metric, with intervals from ``bootstrap`` resamples (0 for none).

    Raises:
        Problem: hypotheses and references do not fit together, or a metric cannot work on them.
    """
    scores = []
    for metric in metrics:
        statistics = metric.statistics(hypotheses, references)
        low, high = interval(resample(statistics, metric.score, bootstrap, seed))
        scores.append(
            Score(
                name=metric.name,
                value=metric.score(statistics.sum(0)),
                low=low,
                high=high,
                signature=metric.signature(references, bootstrap, seed),
                segments=len(statistics),
                higher_is_better=metric.higher_is_better,
            )
        )
    return scores


def compare(
    metrics: Sequence[Metric],
    hypotheses: Sequence[str],
    baseline: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> list[Comparison]:
    """Compare two systems by each metric: the paired bootstrap test (Koehn, 2004), two-sided.

    The resampled differences, moved to a mean of 0, stand for what chance does (Riezler and
    Maxwell, 2005).

    Raises:
        Problem: hypotheses and references do not fit together, or ``bootstrap`` is below 1.
    """
    if bootstrap < 1:
        raise Problem("a comparison needs resamples; set bootstrap to 1000")
    comparisons = []
    for metric in metrics:
        ours = metric.statistics(hypotheses, references)
        theirs = metric.statistics(baseline, references)
        value, other = metric.score(ours.sum(0)), metric.score(theirs.sum(0))
        # one seed draws the same segments for both
        differences = resample(ours, metric.score, bootstrap, seed) - resample(
            theirs, metric.score, bootstrap, seed
        )
        by_chance = np.abs(differences - differences.mean()) >= abs(value - other)
        comparisons.append(
            Comparison(
                name=metric.name,
                value=value,
                baseline=other,
                difference=value - other,
                low=float(np.quantile(differences, 0.025)),
                high=float(np.quantile(differences, 0.975)),
                p=(int(by_chance.sum()) + 1) / (bootstrap + 1),
                signature=metric.signature(references, bootstrap, seed),
            )
        )
    return comparisons


def resample(
    statistics: Float[np.ndarray, "segments k"], score: ScoreOfTotal, resamples: int, seed: int
) -> Float[np.ndarray, "resamples"]:
    """Return the scores of corpora of the same size, drawn with replacement (Efron, 1979)."""
    generator = np.random.default_rng(seed)
    size = len(statistics)
    scores = np.empty(resamples)
    for number in range(resamples):
        times = np.bincount(generator.integers(size, size=size), minlength=size)
        scores[number] = score(times @ statistics)
    return scores


def perplexity(total_nll: float, tokens: float) -> float:
    """Return exp(negative log-likelihood in nats / tokens), infinite where that overflows.

    Raises:
        Problem: there are no tokens.
    """
    if not tokens:
        raise Problem("perplexity needs at least one token; the corpus has none")
    mean = total_nll / tokens
    return math.exp(mean) if mean < 709 else math.inf


def perplexity_score(
    nll: Float[np.ndarray, "segments"],
    tokens: Float[np.ndarray, "segments"],
    unit: str,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> Score:
    """Return the perplexity of a corpus from the sums of each segment.

    ``unit`` names what a token is ("character", "sentencepiece 8000", ...): perplexities over
    different tokens cannot be compared.
    """
    statistics = np.column_stack([nll, tokens]).astype(np.float64)

    def of_total(total: Float[np.ndarray, "k"]) -> float:
        return perplexity(float(total[0]), float(total[1]))

    low, high = interval(resample(statistics, of_total, bootstrap, seed))
    drawn = f"bs:{bootstrap}|seed:{seed}|" if bootstrap else ""
    return Score(
        name="Perplexity",
        value=of_total(statistics.sum(0)),
        low=low,
        high=high,
        signature=f"{drawn}unit:{unit}|transduce:{__version__}",
        segments=len(statistics),
        higher_is_better=False,
    )


def interval(scores: Float[np.ndarray, "resamples"]) -> tuple[float | None, float | None]:
    """Return what bounds the middle 95 of a hundred; None if there is no score."""
    if not len(scores):
        return None, None
    low, high = np.quantile(scores, [0.025, 0.975]).tolist()
    return low, high


def _digits(value: float) -> int:
    return 1 if abs(value) >= 10 else 2
