"""How good candidates are expected to be where nobody knows the right answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from transduce.evaluate.metrics import Metric

Utility = Callable[[str, str], float]  # of a hypothesis, were this reference right; more is better


def expected_utilities(
    candidates: Sequence[str],
    references: Sequence[str],
    probabilities: Float[np.ndarray, "M"],
    utility: Metric | Utility,
) -> Float[np.ndarray, "N"]:
    """Return the mean utility of N candidates over M references of these probabilities.

    A metric counts as it scores segments; one of which less is better, by its negative.
    """
    pairs = [(candidate, reference) for candidate in candidates for reference in references]
    if isinstance(utility, Metric):
        sign = 1 if utility.higher_is_better else -1
        hypotheses, rights = zip(*pairs, strict=True)
        rows = utility.statistics(hypotheses, [[right] for right in rights])
        scores = [sign * utility.segment_score(row) for row in rows]
    else:
        scores = [utility(candidate, reference) for candidate, reference in pairs]
    table = np.reshape(scores, (len(candidates), len(references)))
    expected: Float[np.ndarray, "N"] = table @ probabilities
    return expected
