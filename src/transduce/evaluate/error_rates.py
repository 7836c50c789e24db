"""Error rates of words, characters and phones, and of whole outputs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np
from jaxtyping import Float
from rapidfuzz.distance import Levenshtein

from transduce.evaluate.metrics import SEED, Metric, MetricBlueprint, References, describe

Unit = Literal["word", "character", "phone"]


class WordErrorRateBlueprint(MetricBlueprint):
    """Edits of words (whatever spaces separate) for each hundred words of the reference."""

    kind: Literal["wer"] = "wer"
    lowercase: bool = False
    """take upper and lower case as equal"""

    def build(self) -> Metric:
        """Make the metric."""
        return ErrorRate("word", self.lowercase)


class CharacterErrorRateBlueprint(MetricBlueprint):
    """Edits of characters (Unicode code points, inner spaces too) for each hundred of them."""

    kind: Literal["cer"] = "cer"
    lowercase: bool = False
    """take upper and lower case as equal"""

    def build(self) -> Metric:
        """Make the metric."""
        return ErrorRate("character", self.lowercase)


class PhoneErrorRateBlueprint(MetricBlueprint):
    """Edits of phones (written with spaces between them) for each hundred phones."""

    kind: Literal["per"] = "per"

    def build(self) -> Metric:
        """Make the metric."""
        return ErrorRate("phone", lowercase=False)


class ExactMatchBlueprint(MetricBlueprint):
    """Outputs in a hundred that equal a reference."""

    kind: Literal["exact"] = "exact"
    lowercase: bool = False
    """take upper and lower case as equal"""

    def build(self) -> Metric:
        """Make the metric."""
        return WholeOutput(self.lowercase, errors=False)


class SequenceErrorBlueprint(MetricBlueprint):
    """Outputs in a hundred that equal no reference; dictionaries of pronunciation call it WER."""

    kind: Literal["sequence_error"] = "sequence_error"
    lowercase: bool = False
    """take upper and lower case as equal"""

    def build(self) -> Metric:
        """Make the metric."""
        return WholeOutput(self.lowercase, errors=True)


class ErrorRate(Metric):
    """Insertions, deletions and substitutions in a hundred units of the reference.

    Where a segment has several references, the closest counts: the one with the fewest edits, and
    of those the longest.
    """

    higher_is_better = False

    def __init__(self, unit: Unit, lowercase: bool) -> None:
        self.name = {"word": "WER", "character": "CER", "phone": "PER"}[unit]
        self._unit, self._lowercase = unit, lowercase

    def measure(
        self, hypotheses: Sequence[str], references: References
    ) -> Sequence[Sequence[float]]:
        """Return (edits, units of the closest reference) for each segment."""
        rows = []
        for text, segment in zip(hypotheses, references, strict=True):
            found = self._units(text)
            wanted = map(self._units, segment)
            edits, length = min(
                (Levenshtein.distance(units, found), -len(units)) for units in wanted
            )
            rows.append((edits, -length))
        return rows

    def score(self, total: Float[np.ndarray, "k"]) -> float:
        """Return 100 edits / length; where the length is 0, 0 without edits and 100 with any."""
        edits, length = total.tolist()
        return 100 * edits / length if length else 100.0 * bool(edits)

    def signature(self, references: References, resamples: int = 0, seed: int = SEED) -> str:
        """Return the settings and the version of rapidfuzz."""
        settings = {
            "unit": self._unit,
            "case": "lc" if self._lowercase else "mixed",
            "refs": "closest",
            "rapidfuzz": version("rapidfuzz"),
        }
        return describe(settings, references, resamples, seed)

    def _units(self, text: str) -> list[str]:
        text = text.lower() if self._lowercase else text
        return list(text.strip()) if self._unit == "character" else text.split()


class WholeOutput(Metric):
    """The share of outputs that equal (or with ``errors``, do not equal) any of their references.

    White space is compared as one space, and not at the ends.
    """

    def __init__(self, lowercase: bool, *, errors: bool) -> None:
        self.name = "Sequence error" if errors else "Exact match"
        self.higher_is_better = not errors
        self._lowercase, self._errors = lowercase, errors

    def measure(
        self, hypotheses: Sequence[str], references: References
    ) -> Sequence[Sequence[float]]:
        """Return (1 if it counts, 1) for each segment."""
        return [
            ((self._plain(text) in map(self._plain, segment)) != self._errors, 1)
            for text, segment in zip(hypotheses, references, strict=True)
        ]

    def score(self, total: Float[np.ndarray, "k"]) -> float:
        """Return the share, 0 to 100."""
        return float(100 * total[0] / total[1])

    def signature(self, references: References, resamples: int = 0, seed: int = SEED) -> str:
        """Return the settings."""
        settings = {"case": "lc" if self._lowercase else "mixed", "refs": "any"}
        return describe(settings, references, resamples, seed)

    def _plain(self, text: str) -> str:
        return " ".join((text.lower() if self._lowercase else text).split())
