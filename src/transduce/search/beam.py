"""Beam search: the best few hypotheses side by side."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import PositiveInt, model_validator
from torch import Tensor

from transduce.search.hypotheses import (
    Hypotheses,
    LengthNormalisation,
    PowerNormalisation,
    Trace,
    read_back,
)
from transduce.search.interface import SearchBlueprint
from transduce.search.rows import Rows, most
from transduce.search.scorer import Scorer
from transduce.search.top import rank
from transduce.sequences import positions


class Beam(SearchBlueprint):
    """Keeps the ``width`` likeliest unfinished hypotheses of each source, one token at a time.

    A candidate finishes when it ends with eos and is among the best ``width`` of its step; the
    next ``width`` without eos go on. A source is done when ``width`` hypotheses have finished
    (first come, first served: Kasai 2024), which makes width 1 greedy search, or before that when
    nothing unfinished could still enter the ``n_best``, so stopping early never changes a result.
    Of equal candidates the one of the better parent goes first, then the lowest id.
    """

    kind: Literal["beam"] = "beam"
    width: PositiveInt = 5
    """hypotheses of each source that live side by side"""
    n_best: PositiveInt = 1
    """hypotheses of each source to return"""
    normalisation: LengthNormalisation = PowerNormalisation()
    """how finished hypotheses of different lengths compare"""

    @model_validator(mode="after")
    def _check(self) -> Beam:
        if self.n_best > self.width:
            raise ValueError(f"n_best {self.n_best} is more than width {self.width}; raise width")
        return self

    @torch.no_grad()
    def __call__(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"], limit: Int[Tensor, "B"]
    ) -> Hypotheses:
        """Return the ``n_best`` hypotheses of each source, with the trace of the search."""
        rows = Rows.start(scorer, memory, prompt)
        live = torch.zeros(len(limit), 1, device=limit.device)
        best = torch.full((len(limit), self.n_best), -torch.inf, device=limit.device)
        count = torch.zeros_like(limit)
        steps: list[Trace] = []
        for length in range(1, most(limit) + 1):
            step, live = self._weigh(live, *rows.best(self.width + 1))
            steps.append(step)
            scores = self.normalisation.score(step.log_probs, torch.full_like(step.tokens, length))
            scores = scores.masked_fill(~step.finished, -torch.inf)
            best = torch.cat([best, scores], 1).topk(self.n_best).values
            count = count + step.finished.sum(1)
            hope = self.normalisation.bound(live[:, 0], limit) > best[:, -1]
            going = hope & (count < self.width) & (length < limit)
            if not going.any():
                break
            live = live.masked_fill(~going[:, None], -torch.inf)
            # Dead slots stay where they are, so that they alone never cause a reordering.
            own = positions(self.width, limit.device).clamp(max=rows.width - 1)
            parents = step.parents.gather(1, step.slots).where(live > -torch.inf, own)
            rows = rows.extend(going, parents, step.tokens.gather(1, step.slots))
        trace = Trace(*(torch.stack(parts) for parts in zip(*steps, strict=True)))
        return self._collect(trace, limit)

    def _weigh(
        self,
        live: Float[Tensor, "B W"],
        values: Float[Tensor, "B W M"],
        ids: Int[Tensor, "B W M"],
    ) -> tuple[Trace, Float[Tensor, "B K"]]:
        """Rank the continuations of the live hypotheses; return also who lives on.

        From each hypothesis its best K + 1 are enough: one may be eos, and K others of the same
        parent leave no room for more.
        """
        branches = values.shape[2]
        total = (live[:, :, None] + values).flatten(1)
        missing = max(0, 2 * self.width - total.shape[1])
        total, order = rank(F.pad(total, (0, missing), value=-torch.inf))
        total, order = total[:, : 2 * self.width], order[:, : 2 * self.width]
        tokens = F.pad(ids.flatten(1), (0, missing)).gather(1, order)
        ended = tokens == self.eos
        may_finish = positions(2 * self.width, total.device) < self.width
        going, slots = rank(total.masked_fill(ended, -torch.inf))
        step = Trace(
            parents=(order // branches).clamp(max=live.shape[1] - 1),
            tokens=tokens,
            token_log_probs=F.pad(values.flatten(1), (0, missing)).gather(1, order),
            log_probs=total,
            finished=ended & may_finish & (total > -torch.inf),
            slots=slots[:, : self.width],
        )
        return step, going[:, : self.width]

    def _collect(self, trace: Trace, limit: Int[Tensor, "B"]) -> Hypotheses:
        """Choose from all that has finished; where that is not enough, from what lived last."""
        steps, _, candidates = trace.tokens.shape
        lengths = torch.arange(1, steps + 1, device=trace.tokens.device)[:, None, None]
        scores = self.normalisation.score(trace.log_probs, lengths)
        done = scores.masked_fill(~trace.finished, -torch.inf)
        done, index = rank(done.transpose(0, 1).flatten(1))
        done, index = done[:, : self.n_best], index[:, : self.n_best]

        # The last beam of a source is unfinished if it hit the limit. If it ran into a dead end,
        # it is better than nothing.
        live = scores.masked_fill(trace.tokens == self.eos, -torch.inf).gather(2, trace.slots)
        last = ((live > -torch.inf).any(2) * lengths[:, :, 0]).amax(0) - 1
        sources = torch.arange(len(last), device=last.device)
        at_last = last.clamp(min=0), sources
        unfinished = (last + 1 == limit) | (done[:, 0] == -torch.inf)
        spare = live[at_last].masked_fill(~unfinished[:, None], -torch.inf)
        scores = torch.cat([done, spare], 1)
        ends = torch.cat([index // candidates, last[:, None].expand(-1, self.width)], 1)
        ranks = torch.cat([index % candidates, trace.slots[at_last]], 1)

        # Both parts are in order already: take what is real from the front.
        chosen = rank((scores > -torch.inf).int())[1][:, : self.n_best]
        scores, ends, ranks = (x.gather(1, chosen) for x in (scores, ends, ranks))
        real = scores > -torch.inf
        log_probs = trace.log_probs[ends.clamp(min=0), sources[:, None], ranks]
        ends = ends.where(real, -1)
        tokens, token_log_probs = read_back(trace, ends, ranks, self.eos)
        return Hypotheses(
            tokens=tokens,
            lengths=ends + 1,
            finished=real & (chosen < self.n_best),
            scores=scores,
            log_probs=log_probs.masked_fill(~real, -torch.inf),
            token_log_probs=token_log_probs,
            trace=trace,
        )
