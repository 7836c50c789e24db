"""What a search returns, and how hypotheses of different lengths are ranked."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import NonNegativeFloat
from torch import Tensor

from transduce.blueprint import Part
from transduce.sequences import positions


class Trace(NamedTuple):
    """All that a beam search weighed: T steps, each with its C best candidates, best first.

    A candidate continues the hypothesis in slot ``parents`` of the step before by one token.
    """

    parents: Int[Tensor, "*T B C"]
    tokens: Int[Tensor, "*T B C"]
    token_log_probs: Float[Tensor, "*T B C"]
    log_probs: Float[Tensor, "*T B C"]  # of the hypothesis up to here; -inf: there is none
    finished: Bool[Tensor, "*T B C"]  # it ended here and may be returned
    slots: Int[Tensor, "*T B K"]  # the candidates that went on; the others were pruned


class Hypotheses(NamedTuple):
    """The K best hypotheses of each of B sources, best first.

    Finished ones (they end with eos) come before those that the limit cut off; where nothing has
    finished and nothing could go on, the last that were alive are returned as unfinished. Where
    there are fewer than K, the rest has length 0 and scores -inf.
    """

    tokens: Int[Tensor, "B K T"]  # without the prompt, with eos
    lengths: Int[Tensor, "B K"]  # tokens in each, eos included; what lies behind means nothing
    finished: Bool[Tensor, "B K"]
    scores: Float[Tensor, "B K"]  # what the search ranked by
    log_probs: Float[Tensor, "B K"]
    token_log_probs: Float[Tensor, "B K T"]  # 0 behind the end
    trace: Trace | None = None
    bound: Float[Tensor, "B"] | None = None  # proven: no finished hypothesis scores higher


class LengthNormalisation(Part):
    """Slot for how hypotheses of different lengths are compared.

    A score may not fall when the log-probability rises.
    """

    @abstractmethod
    def score(
        self, log_probs: Float[Tensor, "*#shape"], lengths: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        """Return the score of hypotheses of ``lengths`` tokens, eos included."""

    @abstractmethod
    def bound(
        self, log_probs: Float[Tensor, "*#shape"], limits: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        """Return a score that no continuation up to ``limits`` tokens can exceed."""


class PowerNormalisation(LengthNormalisation):
    """Log-probability / length ** ``exponent``.

    Without it (0) the best hypothesis of many a model is too short, often empty (Stahlberg & Byrne
    2019). With 1, the default here and in most toolkits, it is the mean over the tokens (Jean
    2015), which needs no tuning; Murray & Chiang (2018) compare the remedies.
    """

    kind: Literal["power"] = "power"
    exponent: NonNegativeFloat = 1.0
    """0: plain log-probability; 1: mean log-probability of a token"""

    def score(
        self, log_probs: Float[Tensor, "*#shape"], lengths: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        return log_probs / lengths.to(log_probs.dtype) ** self.exponent

    def bound(
        self, log_probs: Float[Tensor, "*#shape"], limits: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        # Let p <= 0 be the log-probability now and q that of a continuation of n tokens. Tokens
        # have log-probabilities <= 0, so q <= p; n <= limit and the exponent a >= 0, so
        # q / n**a <= p / n**a <= p / limit**a, the last because p is not positive.
        return self.score(log_probs, limits)


class GnmtNormalisation(LengthNormalisation):
    """Log-probability / ((5 + length) / 6) ** ``exponent`` (Wu 2016).

    The 5 makes short lengths weigh less than in ``power``. Wu (2016) settled on an exponent of 0.2,
    Vaswani (2017) on 0.6.
    """

    kind: Literal["gnmt"] = "gnmt"
    exponent: NonNegativeFloat = 0.6
    """0: plain log-probability; the higher, the longer the answers"""

    def score(
        self, log_probs: Float[Tensor, "*#shape"], lengths: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        return log_probs / ((5 + lengths.to(log_probs.dtype)) / 6) ** self.exponent

    def bound(
        self, log_probs: Float[Tensor, "*#shape"], limits: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        # As for a power: the divisor is positive and grows with the length.
        return self.score(log_probs, limits)


class RewardNormalisation(LengthNormalisation):
    """Log-probability + ``reward`` * length (He 2016).

    It asks for tuning: the right reward for each token makes answers as long as references on dev
    (Murray & Chiang 2018); above what a token costs, every answer is as long as it may be.
    """

    kind: Literal["reward"] = "reward"
    reward: NonNegativeFloat = 0.5
    """nats for each token; 0: plain log-probability"""

    def score(
        self, log_probs: Float[Tensor, "*#shape"], lengths: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        return log_probs + self.reward * lengths.to(log_probs.dtype)

    def bound(
        self, log_probs: Float[Tensor, "*#shape"], limits: Int[Tensor, "*#shape"]
    ) -> Float[Tensor, "*#shape"]:
        # With p, q and n as for a power: q <= p and n <= limit, and the reward r >= 0, so
        # q + r * n <= p + r * limit.
        return self.score(log_probs, limits)


def read_back(
    trace: Trace, ends: Int[Tensor, "B K"], ranks: Int[Tensor, "B K"], eos: int
) -> tuple[Int[Tensor, "B K T"], Float[Tensor, "B K T"]]:
    """Follow the parents of the candidates of these ``ranks`` at these steps back to the start.

    Returns their tokens and the log-probabilities of these; eos and 0 behind the end. A step of
    -1 stands for no hypothesis.
    """
    tokens, log_probs = [], []
    slot = torch.zeros_like(ends)
    size = int(ends.max()) + 1
    for step in reversed(range(size)):
        rank = torch.where(ends == step, ranks, trace.slots[step].gather(1, slot))
        tokens.append(trace.tokens[step].gather(1, rank))
        log_probs.append(trace.token_log_probs[step].gather(1, rank))
        slot = trace.parents[step].gather(1, rank)
    if not tokens:
        empty = trace.log_probs.new_empty(*ends.shape, 0)
        return empty.long(), empty
    beyond = positions(size, ends.device) > ends[:, :, None]
    return (
        torch.stack(tokens[::-1], 2).masked_fill(beyond, eos),
        torch.stack(log_probs[::-1], 2).masked_fill(beyond, 0.0),
    )
