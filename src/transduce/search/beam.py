"""Beam search: the best few hypotheses side by side."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from transduce.search.hypotheses import (
    Hypotheses,
    LengthNormalisation,
    PowerNormalisation,
    Trace,
    read_back,
)
from transduce.search.notes import room_for, with_room
from transduce.search.stepwise import Move, StepwiseSearch
from transduce.search.top import rank
from transduce.sequences import positions


class BeamNotes(NamedTuple):
    """What a beam search knows of its sources."""

    length: Int[Tensor, "A"]
    limit: Int[Tensor, "A"]
    live: Float[Tensor, "A K"]  # log-probabilities of the hypotheses in the rows
    best: Float[Tensor, "A n"]  # scores of the best that have finished
    ended: Int[Tensor, "A"]  # how many have finished
    trace: Trace  # here the sources lead and steps follow


class Beam(StepwiseSearch):
    """Keeps the ``width`` likeliest unfinished hypotheses of each source, one token at a time.

    A candidate finishes when it ends with eos and is among the best ``width`` of its step; the
    next ``width`` without eos go on. A source is done when ``patience`` * ``width`` hypotheses have
    finished (first come, first served: Kasai 2024), which makes width 1 greedy search, or before
    that when nothing unfinished could still enter the ``n_best``, so stopping early never changes a
    result. Of equal candidates the one of the better parent goes first, then the lowest id.
    """

    kind: Literal["beam"] = "beam"
    width: PositiveInt = 5
    """hypotheses of each source that live side by side"""
    n_best: PositiveInt = 1
    """hypotheses of each source to return"""
    normalisation: LengthNormalisation = PowerNormalisation()
    """how finished hypotheses of different lengths compare"""
    patience: PositiveFloat = 1.0
    """finished hypotheses to wait for, for each of width; the more, the longer it looks"""

    @model_validator(mode="after")
    def _check(self) -> Beam:
        if self.n_best > self.width:
            raise ValueError(f"n_best {self.n_best} is more than width {self.width}; raise width")
        if self.n_best > self.enough:
            raise ValueError(
                f"patience {self.patience} waits for {self.enough} finished hypotheses, which are "
                f"less than n_best {self.n_best}; raise patience"
            )
        return self

    @property
    def enough(self) -> int:
        """Number of finished hypotheses after which a source is done."""
        return math.ceil(self.patience * self.width - 1e-6)  # 1.1 * 10 is 11.000000000000002

    @property
    def rows(self) -> int:
        return self.width

    @property
    def branches(self) -> int:
        """Number of tokens after each row that it wants to see.

        One may be eos, and K others of the same parent leave no room for more.
        """
        return self.width + 1

    @property
    def decided(self) -> bool:
        """Whether each token is certain as soon as it is taken: the first that ends is the last."""
        return self.width == self.enough == 1

    def with_answers(self, count: int) -> Beam:
        """Return the search so that it returns at least ``count``, wider if it has to be."""
        n_best = max(self.n_best, count)
        width = max(self.width, math.ceil(n_best / min(1.0, self.patience)))
        return self.model_copy(update={"width": width, "n_best": n_best})

    def begin(self, limit: Int[Tensor, "A"], keys: Int[Tensor, "A"]) -> BeamNotes:
        """Return empty notes; of the rows only the first lives."""
        live = torch.full((len(limit), self.width), -torch.inf, device=limit.device)
        live[:, 0] = 0.0
        best = torch.full((len(limit), self.n_best), -torch.inf, device=limit.device)
        zero = torch.zeros_like(limit)
        shape = len(limit), room_for(limit), 2 * self.width
        ids, log_probs = limit.new_zeros(shape), best.new_zeros(shape)
        trace = Trace(
            parents=ids,
            tokens=ids.clone(),
            token_log_probs=log_probs,
            log_probs=log_probs.clone(),
            finished=ids.bool(),
            slots=ids[..., : self.width].clone(),
        )
        return BeamNotes(zero, limit, live, best, zero.clone(), trace)

    def weigh(
        self,
        notes: BeamNotes,
        values: Float[Tensor, "A K M"],
        ids: Int[Tensor, "A K M"],
        chosen: bool = False,
    ) -> Move:
        """Rank the continuations of the live hypotheses; go on while that can pay.

        Where they were ``chosen`` before, all that end may finish.
        """
        step, live = self._rank(notes.live, values, ids, 2 * self.width if chosen else self.width)
        trace = with_room(notes.trace, notes.length)
        sources = torch.arange(len(live), device=live.device)
        for whole, part in zip(trace, step, strict=True):
            whole[sources, notes.length] = part
        length = notes.length + 1
        scores = self.normalisation.score(step.log_probs, length[:, None])
        scores = scores.masked_fill(~step.finished, -torch.inf)
        best = torch.cat([notes.best, scores], 1).topk(self.n_best).values
        ended = notes.ended + step.finished.sum(1)
        hope = self.normalisation.bound(live[:, 0], notes.limit) > best[:, -1]
        going = hope & (ended < self.enough) & (length < notes.limit)
        # Dead slots stay where they are, so that they alone never cause a reordering.
        own = positions(self.width, live.device)
        parents = step.parents.gather(1, step.slots).where(live > -torch.inf, own)
        notes = BeamNotes(length, notes.limit, live, best, ended, trace)
        return Move(notes, going, parents, step.tokens.gather(1, step.slots))

    def _rank(
        self,
        live: Float[Tensor, "A K"],
        values: Float[Tensor, "A K M"],
        ids: Int[Tensor, "A K M"],
        finish: int,
    ) -> tuple[Trace, Float[Tensor, "A K"]]:
        """Return the best 2 K continuations, and the log-probabilities of those that live on.

        Of the best ``finish`` those that end are finished.
        """
        branches, size = values.shape[2], 2 * self.width
        total = (live[:, :, None] + values).flatten(1)
        missing = max(0, size - total.shape[1])
        total, order = rank(F.pad(total, (0, missing), value=-torch.inf))
        total, order = total[:, :size], order[:, :size]
        tokens = F.pad(ids.flatten(1), (0, missing)).gather(1, order)
        ended = tokens == self.eos
        may_finish = positions(size, total.device) < finish
        going, slots = rank(total.masked_fill(ended, -torch.inf))
        step = Trace(
            parents=(order // branches).clamp(max=self.width - 1),
            tokens=tokens,
            token_log_probs=F.pad(values.flatten(1), (0, missing)).gather(1, order),
            log_probs=total,
            finished=ended & may_finish & (total > -torch.inf),
            slots=slots[:, : self.width],
        )
        return step, going[:, : self.width]

    def collect(self, notes: BeamNotes) -> Hypotheses:
        """Choose from all that has finished; where that is not enough, from what lived last."""
        limit, taken = notes.limit, int(notes.length.max())
        trace = Trace(*(part[:, :taken].transpose(0, 1) for part in notes.trace))
        steps, _, candidates = trace.tokens.shape
        lengths = torch.arange(1, steps + 1, device=limit.device)[:, None, None]
        behind = lengths > notes.length[:, None]
        trace = trace._replace(
            log_probs=trace.log_probs.masked_fill(behind, -torch.inf),
            finished=trace.finished & ~behind,
        )
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
