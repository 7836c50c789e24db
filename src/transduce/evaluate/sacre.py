"""BLEU, chrF and TER as sacrebleu computes them (Post, 2018)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from sacrebleu import BLEU, CHRF, TER

from transduce.evaluate.metrics import (
    SEED,
    Metric,
    MetricBlueprint,
    References,
    reference_count,
)


class BleuBlueprint(MetricBlueprint):
    """BLEU (Papineni et al., 2002)."""

    kind: Literal["bleu"] = "bleu"
    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """what counts as a word; "none" splits at spaces only"""
    lowercase: bool = False
    """take upper and lower case as equal"""
    max_order: Annotated[int, Field(ge=1)] = 4
    """words in the longest n-gram"""

    def build(self) -> Metric:
        """Make the metric."""
        name = "BLEU" if self.max_order == 4 else f"BLEU-{self.max_order}"
        scorer = BLEU(
            lowercase=self.lowercase,
            tokenize=self.tokenize,
            max_ngram_order=self.max_order,
            force=True,  # whether text may look tokenised is not the metric's to say
        )
        return SacreMetric(scorer, name, higher_is_better=True)


class ChrfBlueprint(MetricBlueprint):
    """ChrF (Popović, 2015); with ``word_order`` 2 it is chrF++ (Popović, 2017)."""

    kind: Literal["chrf"] = "chrf"
    char_order: Annotated[int, Field(ge=1)] = 6
    """characters in the longest n-gram"""
    word_order: Annotated[int, Field(ge=0)] = 0
    """words in the longest n-gram of words; 0 looks at characters only"""
    beta: Annotated[int, Field(ge=1)] = 2
    """how many times recall weighs what precision weighs"""
    lowercase: bool = False
    """take upper and lower case as equal"""
    whitespace: bool = False
    """count spaces as characters"""

    def build(self) -> Metric:
        """Make the metric."""
        scorer = CHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.lowercase,
            whitespace=self.whitespace,
        )
        name = f"chrF{self.beta}{'+' * self.word_order}"
        return SacreMetric(scorer, name, higher_is_better=True)


class TerBlueprint(MetricBlueprint):
    """Translation edit rate (Snover et al., 2006)."""

    kind: Literal["ter"] = "ter"
    normalized: bool = False
    """separate punctuation from words first"""
    no_punct: bool = False
    """leave punctuation out"""
    asian_support: bool = False
    """let the two settings above know Chinese and Japanese characters"""
    case_sensitive: bool = False
    """take upper and lower case as different"""

    def build(self) -> Metric:
        """Make the metric."""
        scorer = TER(self.normalized, self.no_punct, self.asian_support, self.case_sensitive)
        return SacreMetric(scorer, "TER", higher_is_better=False)


class SacreMetric(Metric):
    """A metric of sacrebleu.

    Only its corpus score is public, not the statistics it comes from; this class alone uses the two
    private methods for those, and a test holds it to the public score.
    """

    def __init__(self, scorer: BLEU | CHRF | TER, name: str, *, higher_is_better: bool) -> None:
        self._scorer, self.name, self.higher_is_better = scorer, name, higher_is_better

    def measure(
        self, hypotheses: Sequence[str], references: References
    ) -> Sequence[Sequence[float]]:
        """Return sacrebleu's statistics of each segment."""
        most = max(map(len, references))
        # sacrebleu wants the first references of all segments, then the second; None where it ends
        streams = [
            [segment[place] if place < len(segment) else None for segment in references]
            for place in range(most)
        ]
        rows: list[list[float]] = self._scorer._extract_corpus_statistics(
            hypotheses,
            streams,  # type: ignore[arg-type]
        )
        return rows

    def score(self, total: Float[np.ndarray, "k"]) -> float:
        """Return sacrebleu's score, 0 to 100 (TER may be higher)."""
        return float(self._scorer._compute_score_from_stats(total.tolist()).score)

    def segment_score(self, statistics: Float[np.ndarray, "k"]) -> float:
        """Return sacrebleu's score of a sentence: BLEU leaves out n-grams longer than that."""
        if not isinstance(self._scorer, BLEU):
            return self.score(statistics)
        scorer = copy.copy(self._scorer)
        scorer.effective_order = True
        return float(scorer._compute_score_from_stats(statistics.tolist()).score)

    def signature(self, references: References, resamples: int = 0, seed: int = SEED) -> str:
        """Return sacrebleu's own signature."""
        scorer = copy.copy(self._scorer)
        scorer.num_refs = reference_count(references) or -1
        signature = scorer.get_signature()
        if resamples:
            signature.update("bs", resamples)
            signature.update("seed", seed)
        return str(signature)
