"""Whether confidences can be believed: the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from transduce import __version__
from transduce.evaluate.metrics import SEED
from transduce.evaluate.scores import Score, interval, resample

Level = Literal["token", "answer"]

BINS = 15  # as in Guo (2017)


def calibration_score(
    level: Level,
    confidences: Sequence[Float[np.ndarray, "k"]],
    right: Sequence[Bool[np.ndarray, "k"]],
    temperature: float,
    bins: int = BINS,
    bootstrap: int = 1000,
) -> Score:
    """Return the expected calibration error, in hundredths (Guo 2017), of what segments hold.

    Predictions are sorted into ``bins`` of equal width by their confidence; the error is the mean
    distance between the share that is ``right`` and the mean confidence in a bin, weighed by how
    many are in it. ``level`` says what is predicted, ``temperature`` what confidences were made by.
    """
    statistics = np.zeros((len(confidences), 3, bins))
    for row, (sure, hit) in enumerate(zip(confidences, right, strict=True)):
        place = np.minimum((sure * bins).astype(np.int64), bins - 1)
        for number, weights in enumerate((np.ones_like(sure), sure, hit.astype(np.float64))):
            statistics[row, number] = np.bincount(place, weights, bins)

    def of_total(total: Float[np.ndarray, "k"]) -> float:
        count, sure, hits = total.reshape(3, bins)
        return 100 * float(np.abs(hits - sure).sum()) / max(1.0, float(count.sum()))

    flat = statistics.reshape(len(statistics), 3 * bins)
    low, high = interval(resample(flat, of_total, bootstrap, SEED))
    drawn = f"bs:{bootstrap}|seed:{SEED}|" if bootstrap else ""
    facts = f"level:{level}|bins:{bins}|width:equal|temperature:{temperature:.4g}"
    return Score(
        name=f"ECE ({level}s)",
        value=of_total(flat.sum(0)),
        low=low,
        high=high,
        signature=f"{drawn}{facts}|transduce:{__version__}",
        segments=len(flat),
        higher_is_better=False,
    )
