"""Minimum Bayes risk: of all candidates the one that is expected to be best by a metric."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from transduce.evaluate import Metric, Utility, expected_utilities
from transduce.result import Result

Weights = Literal["posterior", "uniform"]


def least_risk(result: Result, utility: Metric | Utility, weights: Weights = "posterior") -> Result:
    """Return the candidate of the highest expected utility, with the others as its alternatives.

    Candidates are the result and its alternatives; each is judged against all that have finished as
    if one of these were right. How likely that is of each says ``weights``: ``posterior``, for the
    best of a beam, takes the model's probabilities (Kumar & Byrne 2004); ``uniform``, for samples,
    counts how often each was drawn (Eikema & Aziz 2020). The utility is a metric or a function of
    hypothesis and reference. ``score`` is what is expected. Candidates of one text are one, those
    that have finished come first, and of equal ones the one that came first. Where there is nothing
    to choose from, the result stays what it is.
    """
    if not result.alternatives:
        return result
    candidates = [result, *result.alternatives]
    finished = [one for one in candidates if one.finished] or candidates
    log_probs = np.array([one.log_prob if weights == "posterior" else 0.0 for one in finished])
    probabilities = np.exp(log_probs - log_probs.max())
    evidence: dict[str, float] = {}
    for one, probability in zip(finished, probabilities, strict=True):
        evidence[one.text] = evidence.get(one.text, 0.0) + float(probability)
    distinct = {one.text: one for one in reversed([*finished, *candidates])}  # the first one stays
    different = [distinct[text] for text in dict.fromkeys(one.text for one in candidates)]
    likely = np.array(list(evidence.values())) / sum(evidence.values())
    expected = expected_utilities([one.text for one in different], list(evidence), likely, utility)
    judged = [
        replace(one, score=float(value), bound=None, alternatives=())
        for one, value in zip(different, expected, strict=True)
    ]
    judged.sort(key=lambda one: (not one.finished, -one.score))
    best, *others = judged
    return replace(best, alternatives=tuple(others), source_pieces=result.source_pieces)
