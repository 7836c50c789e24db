"""ROUGE (Lin, 2004) as the rouge-score package computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from transduce.evaluate.metrics import SEED, Metric, MetricBlueprint, References, describe
from transduce.problem import Problem, optional

Variant = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
Tokenize = Literal["ascii", "stem", "space", "character"]


class RougeBlueprint(MetricBlueprint):
    """ROUGE (Lin, 2004)."""

    kind: Literal["rouge"] = "rouge"
    variant: Variant = "rougeL"
    """what is compared: words, pairs of words, or the longest common subsequence (of each line)"""
    tokenize: Tokenize = "ascii"
    """what counts as a word: "ascii" is a run of a-z and 0-9, any case; "stem" its English stem"""

    def build(self) -> Metric:
        """Make the metric.

        Raises:
            Problem: the package rouge-score is not installed.
        """
        return Rouge(self.variant, self.tokenize)


class Rouge(Metric):
    """The mean over segments of the F-measure against the reference where that is highest."""

    higher_is_better = True

    def __init__(self, variant: Variant, tokenize: Tokenize) -> None:
        self.name = variant.replace("rouge", "ROUGE-")
        self._variant, self._tokenize = variant, tokenize
        self._tokenizer = _tokenizer(tokenize)
        scorer = optional("rouge_score.rouge_scorer", "metrics").RougeScorer
        self._scorer = scorer([variant], tokenizer=self._tokenizer)

    def measure(
        self, hypotheses: Sequence[str], references: References
    ) -> Sequence[Sequence[float]]:
        """Return (F-measure, 1) for each segment.

        Raises:
            Problem: the tokeniser finds no word in any reference.
        """
        if not any(self._tokenizer.tokenize(text) for segment in references for text in segment):
            raise Problem(
                f"ROUGE with tokenize: {self._tokenize} finds no word in any reference;"
                " use tokenize: space or character"
            )
        rows = []
        for text, segment in zip(hypotheses, references, strict=True):
            score = self._scorer.score_multi(segment, text)[self._variant]
            rows.append((float(score.fmeasure), 1.0))
        return rows

    def score(self, total: Float[np.ndarray, "k"]) -> float:
        """Return the mean, 0 to 100."""
        return float(100 * total[0] / total[1])

    def signature(self, references: References, resamples: int = 0, seed: int = SEED) -> str:
        """Return the settings and the version of rouge-score."""
        settings = {
            "measure": "f",
            "refs": "best",
            "tok": self._tokenize,
            "rouge-score": version("rouge-score"),
        }
        return describe(settings, references, resamples, seed)


class _Tokenizer:
    """A function in the clothes that rouge-score expects."""

    def __init__(self, cut: Callable[[str], list[str]]) -> None:
        self.tokenize = cut


def _tokenizer(kind: Tokenize) -> Any:
    if kind in ("ascii", "stem"):
        module = optional("rouge_score.tokenizers", "metrics")
        return module.DefaultTokenizer(use_stemmer=kind == "stem")
    return _Tokenizer(str.split if kind == "space" else lambda text: list("".join(text.split())))
