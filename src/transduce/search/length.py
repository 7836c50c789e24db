"""How long answers may be: the fewest and the most tokens, for each source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from transduce.asking import free
from transduce.blueprint import Blueprint
from transduce.search.interface import SearchBlueprint
from transduce.search.scorer import Scorer, quote
from transduce.sequences import Sequences, positions
from transduce.tree import PerSource


class Length(Blueprint):
    """How long answers may be, in symbols; lengths of answers and sources include their end.

    Of two minima the larger counts, of two maxima the smaller. Where a short source's most would be
    below its least, the least counts.
    """

    least: int = Field(1, ge=1)
    """fewest symbols; 1 is the end alone"""
    least_ratio: float = Field(0.0, ge=0)
    """fewest symbols for each symbol of the source"""
    most: int | None = Field(None, ge=1)
    """most symbols; null for this and for most_ratio: as in training, and ten more"""
    most_ratio: float | None = Field(None, gt=0)
    """most symbols for each symbol of the source"""

    @model_validator(mode="after")
    def _leaves_room(self) -> Length:
        for least, most, name in (
            (self.least, self.most, ""),
            (self.least_ratio, self.most_ratio, "_ratio"),
        ):
            if most is not None and least > most:
                raise ValueError(
                    f"least{name} {least} is above most{name} {most}, which leaves no answer; "
                    f"lower least{name}"
                )
        return self

    def fewest(self, lengths: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Return the fewest tokens that sources of these lengths may be answered with."""
        return (lengths * self.least_ratio).ceil().long().clamp(min=self.least)

    def limit(self, lengths: Int[Tensor, "B"], learned: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Return the most tokens that sources of these lengths may be answered with.

        ``learned`` is what counts where nothing is said.
        """
        found = [] if self.most is None else [torch.full_like(lengths, self.most)]
        if self.most_ratio is not None:
            found.append((lengths * self.most_ratio).ceil().long())
        most = torch.stack(found or [learned]).amin(0)
        return torch.maximum(most, self.fewest(lengths))

    def over(self, scorer: Scorer) -> Scorer:
        """Return the scorer with eos forbidden as long as an answer is too short."""
        if self.least == 1 and self.least_ratio == 0:
            return scorer
        return AtLeast(scorer, self.fewest)


@dataclass(frozen=True)
class Fewest(PerSource):
    """The fewest tokens that each source may be answered with."""

    tokens: Int[Tensor, "B"]


class AtLeastMemory(NamedTuple):
    """What a scorer remembers of the sources, and how long their answers are at least."""

    inner: Any
    fewest: Fewest


class AtLeastState(NamedTuple):
    """The state of a scorer, and how many more tokens come before each row may end."""

    inner: Any
    missing: Int[Tensor, "N"]


class AtLeast:
    """A scorer that forbids eos before its turn; all else is as another scorer says.

    It is a scorer so that no search has to know. The first symbol that is read is the beginning;
    all others, also those of a prompt, belong to the answer.
    """

    def __init__(
        self, scorer: Scorer, fewest: Callable[[Int[Tensor, "B"]], Int[Tensor, "B"]]
    ) -> None:
        self.scorer, self.fewest = scorer, fewest

    def encode(self, sources: Mapping[str, Sequences]) -> AtLeastMemory:
        """Read the sources; the lengths of "source" are those that count."""
        fewest = self.fewest(sources["source"].lengths)
        return AtLeastMemory(self.scorer.encode(sources), Fewest(fewest))

    def quote(self, memory: AtLeastMemory) -> Sequences:
        """Return the sources, if the other scorer can."""
        return quote(self.scorer, memory.inner)

    def start(
        self, memory: AtLeastMemory, width: int = 1, capacity: int | None = None
    ) -> AtLeastState:
        """Return the state before any token."""
        inner = self.scorer.start(memory.inner, width, capacity)
        return AtLeastState(inner, memory.fewest.tokens.repeat_interleave(width))

    def extend(
        self, tokens: Int[Tensor, "N T"], state: AtLeastState
    ) -> tuple[Float[Tensor, "N T V"], AtLeastState]:
        """Read T tokens in every row; eos has -inf where it would come too early."""
        log_probs, inner = self.scorer.extend(tokens, state.inner)
        read = 1 + positions(tokens.shape[1], tokens.device)
        missing = state.missing[:, None] - read
        early = missing > 0
        if (
            not free(early) or early.any()
        ):  # the table is large, so it is copied only where it changes
            log_probs = log_probs.clone()
            log_probs[..., SearchBlueprint.eos].masked_fill_(early, -torch.inf)
        return log_probs, AtLeastState(inner, missing[:, -1])
