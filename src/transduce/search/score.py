"""Scoring given targets."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce.search.scorer import Scorer
from transduce.sequences import positions


def force(
    scorer: Scorer,
    memory: Any,
    prompt: Int[Tensor, "B P"],
    tokens: Int[Tensor, "B K T"],
    lengths: Int[Tensor, "B K"],
) -> Float[Tensor, "B K T"]:
    """Return the log-probability of every token of K given targets of each source.

    All are read at once, behind the prompt; behind the end of a target stands 0.
    """
    width, size = tokens.shape[1:]
    inputs = torch.cat([prompt[:, None].expand(-1, width, -1), tokens[:, :, :-1]], 2)
    log_probs, _ = scorer.extend(inputs.flatten(0, 1), scorer.start(memory, width))
    found = log_probs[:, prompt.shape[1] - 1 :].gather(2, tokens.flatten(0, 1)[:, :, None])
    beyond = positions(size, tokens.device) >= lengths[:, :, None]
    return found.view(tokens.shape).float().masked_fill(beyond, 0.0)
