"""Constraints against saying things again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from transduce.asking import due
from transduce.search.constrain.constraint import Constraint, ConstraintBlueprint, Target
from transduce.sequences import Sequences, positions


class Output(NamedTuple):
    """What was read behind the beginning; a length of -1: nothing, not even the beginning."""

    tokens: Int[Tensor, "N T"]
    length: Int[Tensor, "N"]


class Remembers(Constraint[Output]):
    """A constraint that goes by the whole output so far."""

    def begin(self, sources: Mapping[str, Sequences]) -> Output:
        """Return the state before anything is read, one row for every source."""
        lengths = next(iter(sources.values())).lengths
        return Output(lengths.new_zeros(len(lengths), 0), torch.full_like(lengths, -1))

    def read(self, tokens: Int[Tensor, "N"], state: Output) -> Output:
        """Read one token in every row."""
        longer = F.pad(state.tokens, (0, 1))
        place = state.length[:, None]
        here = positions(longer.shape[1], longer.device) == place
        longer = torch.where(here, tokens[:, None], longer)
        length = state.length + 1
        # Rows that joined in or left may be shorter than there is room for.
        if due(length, longer.shape[1]):
            longer = longer[:, : max(0, int(length.max()))].contiguous()
        return Output(longer, length)


def marked(ids: Int[Tensor, "N M"], real: Bool[Tensor, "N M"], size: int) -> Bool[Tensor, "N V"]:
    """Return which of V symbols are among the real ids of each row."""
    table = torch.zeros(len(ids), size + 1, dtype=torch.bool, device=ids.device)
    return table.scatter_(1, ids.masked_fill(~real, size), True)[:, :size]


class NoRepeat(Remembers):
    """Forbids each symbol that would complete a string of ``size`` symbols a second time."""

    def __init__(self, size: int) -> None:
        self.size = size

    def weigh(self, log_probs: Float[Tensor, "N V"], state: Output) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for what may not."""
        tokens, length = state
        first = self.size - 1
        if tokens.shape[1] <= first:
            return log_probs
        place = (length[:, None] - first + positions(first, tokens.device)).clamp(min=0)
        before = tokens.unfold(1, self.size, 1)  # (N, W, size)
        same = (before[:, :, :first] == tokens.gather(1, place)[:, None]).all(2)
        ends = positions(before.shape[1], tokens.device) + first
        again = marked(before[:, :, first], same & (ends < length[:, None]), log_probs.shape[1])
        return log_probs.masked_fill(again, -torch.inf)


class RepetitionPenalty(Remembers):
    """Multiplies the log-probabilities of symbols that were said by ``factor``.

    They are then made to add up to 1 again, so scores are no longer those of the scorer inside.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def weigh(self, log_probs: Float[Tensor, "N V"], state: Output) -> Float[Tensor, "N V"]:
        """Return the changed log-probabilities of what may follow."""
        real = positions(state.tokens.shape[1], log_probs.device) < state.length[:, None]
        said = marked(state.tokens, real, log_probs.shape[1])
        changed = torch.where(said, log_probs * self.factor, log_probs)
        total = changed.logsumexp(1, keepdim=True)
        return changed - total.masked_fill(total == -torch.inf, 0.0)


class NoRepeatBlueprint(ConstraintBlueprint):
    """No string of symbols of this length may come twice (Paulus et al. 2018)."""

    kind: Literal["no_repeat"] = "no_repeat"
    size: int = Field(3, ge=1)
    """symbols in a string"""

    def build(self, target: Target) -> NoRepeat:
        """Make the constraint."""
        return NoRepeat(self.size)


class RepetitionPenaltyBlueprint(ConstraintBlueprint):
    """Makes symbols that were said less likely (Keskar et al. 2019).

    Scores are then not the model's own probabilities. Where Keskar divides scores before the
    softmax, log-probabilities, which are negative, are multiplied.
    """

    kind: Literal["repetition_penalty"] = "repetition_penalty"
    factor: float = Field(1.2, ge=1)
    """1 changes nothing"""

    def build(self, target: Target) -> RepetitionPenalty:
        """Make the constraint."""
        return RepetitionPenalty(self.factor)
