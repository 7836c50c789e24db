"""Several scorers as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.search.scorer import Scorer, quote
from transduce.sequences import Sequences

Average = Literal["probabilities", "log_probabilities"]


@dataclass(frozen=True)
class Ensemble:
    """Scores a token by the mean of what several scorers say about it (Sutskever 2014).

    They share a target vocabulary. A source by the name of ``2:source`` is what the second of them
    reads as ``source``; one without a number is read by all that have no such other.

    The mean of ``probabilities`` likes what any of them finds likely. The mean of
    ``log_probabilities``, which is normalised again, likes what none of them finds unlikely (a
    product of experts, Hinton 2002).
    """

    scorers: tuple[Scorer, ...]
    average: Average = "probabilities"

    def encode(self, sources: Mapping[str, Sequences]) -> tuple[Any, ...]:
        """Read the sources once for each scorer."""
        own = enumerate(self.scorers, 1)
        return tuple(scorer.encode(_for(number, sources)) for number, scorer in own)

    def quote(self, memory: tuple[Any, ...]) -> Sequences:
        """Return the sources as the first scorer has read them, if it can."""
        return quote(self.scorers[0], memory[0])

    def start(
        self, memory: tuple[Any, ...], width: int = 1, capacity: int | None = None
    ) -> tuple[Any, ...]:
        """Return the states of all before any token, ``width`` rows for every source."""
        own = zip(self.scorers, memory, strict=True)
        return tuple(scorer.start(part, width, capacity) for scorer, part in own)

    def extend(
        self, tokens: Int[Tensor, "N T"], state: tuple[Any, ...]
    ) -> tuple[Float[Tensor, "N T V"], tuple[Any, ...]]:
        """Read T tokens in every row of every scorer; return the mean of what they say."""
        own = zip(self.scorers, state, strict=True)
        said, states = zip(*(scorer.extend(tokens, part) for scorer, part in own), strict=True)
        log_probs = torch.stack(said).float()
        if self.average == "probabilities":
            return log_probs.logsumexp(0) - math.log(len(said)), states
        mean = log_probs.mean(0)
        total = mean.logsumexp(-1, keepdim=True)
        return mean - total.masked_fill(total == -torch.inf, 0.0), states


def _for(number: int, sources: Mapping[str, Sequences]) -> dict[str, Sequences]:
    """Return what the scorer of that number reads."""
    own, shared = f"{number}:", {n: source for n, source in sources.items() if ":" not in n}
    return shared | {n[len(own) :]: source for n, source in sources.items() if n.startswith(own)}
