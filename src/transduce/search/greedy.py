"""Greedy search: always the best next token."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from transduce.search.hypotheses import Hypotheses
from transduce.search.interface import SearchBlueprint
from transduce.search.rows import Rows, most
from transduce.search.scorer import Scorer
from transduce.sequences import positions


class Greedy(SearchBlueprint):
    """Takes the best next token until it is eos; of equal ones the lowest id."""

    kind: Literal["greedy"] = "greedy"

    @torch.no_grad()
    def __call__(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"], limit: Int[Tensor, "B"]
    ) -> Hypotheses:
        """Return one hypothesis for each source, scored by its log-probability."""
        rows = Rows.start(scorer, memory, prompt)
        going = torch.ones_like(limit, dtype=torch.bool)
        finished, lengths = torch.zeros_like(going), torch.zeros_like(limit)
        same = torch.zeros_like(limit)[:, None]
        tokens, log_probs = [], []
        for length in range(1, most(limit) + 1):
            values, ids = (x[:, 0, 0] for x in rows.best(1))
            going = going & (values > -torch.inf)
            tokens.append(ids)
            log_probs.append(values)
            lengths = lengths + going
            finished = finished | (going & (ids == self.eos))
            going = going & (ids != self.eos) & (length < limit)
            if not going.any():
                break
            rows = rows.extend(going, same, ids[:, None])
        size = int(lengths.max())
        beyond = positions(size, limit.device) >= lengths[:, None]
        chosen = torch.stack(tokens, 1)[:, :size].masked_fill(beyond, self.eos)
        token_log_probs = torch.stack(log_probs, 1)[:, :size].masked_fill(beyond, 0.0)
        total = token_log_probs.sum(1).masked_fill(lengths == 0, -torch.inf)
        return Hypotheses(
            tokens=chosen[:, None],
            lengths=lengths[:, None],
            finished=finished[:, None],
            scores=total[:, None],
            log_probs=total[:, None],
            token_log_probs=token_log_probs[:, None],
        )
