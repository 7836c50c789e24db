"""Speculative decoding: a small model drafts, the model itself decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor

from transduce import tree
from transduce.problem import Problem
from transduce.search.draft import DraftedSearch, Propose
from transduce.search.scorer import Scorer, quote
from transduce.search.top import top
from transduce.sequences import Sequences

OWN = "draft:"  # before the name of a source that the drafter alone reads


class AidedMemory(NamedTuple):
    """What a model remembers of the sources, and what its drafter does."""

    model: Any
    drafter: Any


@dataclass(frozen=True)
class Aided:
    """A scorer with a smaller one beside it, which nothing but speculative search looks at.

    They share a target vocabulary. A source by the name of ``draft:source`` is what the drafter
    reads as ``source``, if there is one.
    """

    scorer: Scorer
    drafter: Scorer

    def encode(self, sources: Mapping[str, Sequences]) -> AidedMemory:
        """Read the sources once with each."""
        shared = {name: one for name, one in sources.items() if not name.startswith(OWN)}
        own = {n.removeprefix(OWN): one for n, one in sources.items() if n.startswith(OWN)}
        return AidedMemory(self.scorer.encode(shared), self.drafter.encode(shared | own))

    def quote(self, memory: AidedMemory) -> Sequences:
        """Return the sources, if the model can."""
        return quote(self.scorer, memory.model)

    def start(self, memory: AidedMemory, width: int = 1, capacity: int | None = None) -> Any:
        """Return the model's state before any token, ``width`` rows for every source."""
        return self.scorer.start(memory.model, width, capacity)

    def extend(self, tokens: Int[Tensor, "N T"], state: Any) -> tuple[Float[Tensor, "N T V"], Any]:
        """Read T tokens in every row; return what the model says may follow each."""
        return self.scorer.extend(tokens, state)


class Speculative(DraftedSearch):
    """Drafts are greedy answers of a smaller model (Leviathan 2023; Chen 2023)."""

    aided: ClassVar[bool] = True

    kind: Literal["speculative"] = "speculative"
    span: PositiveInt = 4
    """tokens that the small model drafts at a time, at most"""

    def proposers(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"]
    ) -> Iterator[Propose]:
        """Yield what lets the small model go on, for one source after the other.

        Raises:
            Problem: there is none.
        """
        if not isinstance(scorer, Aided):
            raise Problem("it needs a small model beside the model", f"search.kind: {self.kind}")
        state = scorer.drafter.start(memory.drafter)
        for row, read in enumerate(prompt):
            alone = tree.keep(state, torch.tensor([row], device=prompt.device), 1)
            yield _Guess(scorer.drafter, alone, read, self)


class _Guess:
    """Goes on greedily; of what turns out wrong it goes back to the state before."""

    def __init__(
        self, scorer: Scorer, state: Any, prompt: Int[Tensor, "T"], search: Speculative
    ) -> None:
        self.scorer, self.search, self.device = scorer, search, prompt.device
        self.prompt: list[int] = prompt.tolist()
        self.path: list[int] = []  # all that was read, and the last token that was drafted
        self.states = {0: state}  # after so many tokens of the path

    @torch.no_grad()
    def __call__(self, answer: list[int], most: int) -> list[int]:
        """Return how the answer may go on."""
        certain, place = self.prompt + answer, 0
        for count in self.states:
            if count < len(certain) and self.path[:count] == certain[:count]:
                place = max(place, count)
        state, unread = self.states[place], certain[place:]
        self.path, self.states = list(certain), {place: state}
        draft: list[int] = []
        while len(draft) < min(self.search.span, most):
            read = torch.tensor([unread], device=self.device)
            log_probs, state = self.scorer.extend(read, state)
            self.states[len(self.path)] = state
            unread = top(log_probs[0, -1:], 1)[1][0].tolist()
            self.path += unread
            draft += unread
            if unread == [self.search.eos]:
                break
        return draft
