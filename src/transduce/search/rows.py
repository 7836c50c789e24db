"""The rows of a scorer while a search goes on: finished sources leave, hypotheses change places."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce import tree
from transduce.search.scorer import Scorer
from transduce.search.top import top

DONE: Final = 0.2  # share of finished sources at which dropping their rows repays the copy


class Rows(NamedTuple):
    """What a scorer knows of the A sources it still works for, ``width`` rows for each.

    Everything that goes in or comes out leads with all B sources of the batch, so that a search
    never sees which of them have left.
    """

    scorer: Scorer
    state: Any
    log_probs: Float[Tensor, "N V"]  # of what follows each row
    sources: Int[Tensor, "A"]  # which of the B sources these are
    batch: int
    width: int

    @classmethod
    def start(cls, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"]) -> Rows:
        """Read the prompt of every source, in one row each: its hypotheses are not born yet."""
        log_probs, state = scorer.extend(prompt, scorer.start(memory))
        sources = torch.arange(len(prompt), device=prompt.device)
        return cls(scorer, state, log_probs[:, -1], sources, len(prompt), 1)

    def best(self, count: int) -> tuple[Float[Tensor, "B W M"], Int[Tensor, "B W M"]]:
        """Return the best M = min(count, V) tokens after each row; -inf for sources that left."""
        values, ids = (x.view(-1, self.width, x.shape[1]) for x in top(self.log_probs, count))
        values = values.float()
        if len(self.sources) < self.batch:
            shape = (self.batch, *values.shape[1:])
            values = values.new_full(shape, -torch.inf).index_copy_(0, self.sources, values)
            ids = ids.new_zeros(shape).index_copy_(0, self.sources, ids)
        return values, ids

    def extend(
        self,
        going: Bool[Tensor, "B"],
        parents: Int[Tensor, "B K"],
        tokens: Int[Tensor, "B K"],
    ) -> Rows:
        """Continue row ``parents`` of each source with ``tokens``.

        Sources that are not ``going`` on drop out as soon as they are a fifth of all.
        """
        state, sources = self.state, self.sources
        left = going[sources].nonzero()[:, 0]
        if len(left) <= (1 - DONE) * len(sources):
            state, sources = tree.keep(state, left, self.width), sources[left]
        places = torch.arange(len(sources), device=sources.device)[:, None] * self.width
        rows = (places + parents[sources]).flatten()
        unchanged = torch.arange(len(sources) * self.width, device=rows.device)
        if not torch.equal(rows, unchanged):
            state = tree.reorder(state, rows)
        log_probs, state = self.scorer.extend(tokens[sources].flatten()[:, None], state)
        return self._replace(
            state=state, log_probs=log_probs[:, -1], sources=sources, width=parents.shape[1]
        )


def most(limit: Int[Tensor, "B"]) -> int:
    """Return the greatest limit.

    Raises:
        ValueError: a limit leaves no room for a token.
    """
    if limit.min() < 1:
        raise ValueError("a source may be answered with 0 tokens; limits begin at 1")
    return int(limit.max())
