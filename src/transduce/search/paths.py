"""Notes of searches that return what stands in their rows, one hypothesis in each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce.search.hypotheses import Hypotheses
from transduce.search.notes import room_for, with_room
from transduce.search.top import rank
from transduce.sequences import positions


class Taken(NamedTuple):
    """The tokens taken; what lies behind the length of a row means nothing."""

    tokens: Int[Tensor, "A T K"]
    log_probs: Float[Tensor, "A T K"]


class Paths(NamedTuple):
    """What stands in the K rows of A sources."""

    step: Int[Tensor, "A"]
    limit: Int[Tensor, "A"]
    length: Int[Tensor, "A K"]
    going: Bool[Tensor, "A K"]  # False: it has ended, in eos, at the limit or in a dead end
    finished: Bool[Tensor, "A K"]
    taken: Taken


def empty(limit: Int[Tensor, "A"], rows: int) -> Paths:
    """Return rows before any token."""
    length = limit.new_zeros(len(limit), rows)
    tokens = limit.new_zeros(len(limit), room_for(limit), rows)
    taken = Taken(tokens, tokens.float())
    return Paths(torch.zeros_like(limit), limit, length, length == 0, length > 0, taken)


def longer(
    paths: Paths, tokens: Int[Tensor, "A K"], log_probs: Float[Tensor, "A K"], eos: int
) -> Paths:
    """Append a token to every row that goes on; where its log-probability is -inf, the row ends."""
    taken = with_room(paths.taken, paths.step)
    sources = torch.arange(len(tokens), device=tokens.device)
    taken.tokens[sources, paths.step] = tokens
    taken.log_probs[sources, paths.step] = log_probs
    new, step = paths.going & (log_probs > -torch.inf), paths.step + 1
    ended = new & (tokens == eos)
    return Paths(
        step,
        paths.limit,
        paths.length + new,
        new & ~ended & (step < paths.limit)[:, None],
        paths.finished | ended,
        taken,
    )


def moved(paths: Paths, parents: Int[Tensor, "A K"]) -> Paths:
    """Return paths in whose rows stands what stood in the rows ``parents``."""
    index = parents[:, None].expand_as(paths.taken.tokens)
    return paths._replace(
        length=paths.length.gather(1, parents),
        going=paths.going.gather(1, parents),
        finished=paths.finished.gather(1, parents),
        taken=Taken(*(part.gather(2, index) for part in paths.taken)),
    )


def best_first(
    taken: Taken,
    length: Int[Tensor, "A K"],
    finished: Bool[Tensor, "A K"],
    eos: int,
    scores: Float[Tensor, "A K"] | None = None,
) -> Hypotheses:
    """Return what stands in the rows, by ``scores`` or else by log-probability."""
    size = int(length.max())
    beyond = positions(size, length.device) >= length[:, :, None]
    tokens, token_log_probs = (part[:, :size].transpose(1, 2) for part in taken)
    token_log_probs = token_log_probs.masked_fill(beyond, 0.0)
    nothing = length == 0
    total = token_log_probs.sum(2).masked_fill(nothing, -torch.inf)
    scores = total if scores is None else scores.masked_fill(nothing, -torch.inf)
    order = rank(scores)[1]
    order = order.gather(1, rank(finished.gather(1, order).int())[1])
    within = order[:, :, None].expand_as(tokens)
    return Hypotheses(
        tokens=tokens.masked_fill(beyond, eos).gather(1, within),
        lengths=length.gather(1, order),
        finished=finished.gather(1, order),
        scores=scores.gather(1, order),
        log_probs=total.gather(1, order),
        token_log_probs=token_log_probs.gather(1, within),
    )
