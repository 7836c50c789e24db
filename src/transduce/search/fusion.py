"""Shallow fusion: a language model that has a say in what a model answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from transduce.search.scorer import Scorer, quote
from transduce.sequences import Sequences


class Both(NamedTuple):
    """A memory or a state of a model, and that of the language model beside it."""

    model: Any
    language: Any


@dataclass(frozen=True)
class Fusion:
    """Scores a token by log p(token | source) + ``weight`` * log p_language(token).

    That is shallow fusion (Gulcehre 2015). Both score the same symbols. The sums are not normalised
    again: they say what is better, and not how likely it is. ``weight`` is above 0.
    """

    scorer: Scorer
    language: Scorer
    weight: float

    def encode(self, sources: Mapping[str, Sequences]) -> Both:
        """Read the sources once."""
        return Both(self.scorer.encode(sources), self.language.encode(sources))

    def quote(self, memory: Both) -> Sequences:
        """Return the sources, if the model can."""
        return quote(self.scorer, memory.model)

    def start(self, memory: Both, width: int = 1, capacity: int | None = None) -> Both:
        """Return the states before any token, ``width`` rows for every source."""
        return Both(
            self.scorer.start(memory.model, width, capacity),
            self.language.start(memory.language, width, capacity),
        )

    def extend(
        self, tokens: Int[Tensor, "N T"], state: Both
    ) -> tuple[Float[Tensor, "N T V"], Both]:
        """Read T tokens in every row of both; return the weighted sum of what they say."""
        said, model = self.scorer.extend(tokens, state.model)
        usual, language = self.language.extend(tokens, state.language)
        return said.float() + self.weight * usual.float(), Both(model, language)


def fused(scorer: Scorer, language: Scorer, weight: float) -> Scorer:
    """Put a language model beside a scorer; one without weight is not asked at all."""
    return Fusion(scorer, language, weight) if weight else scorer
