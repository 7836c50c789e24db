"""A gate between what was read of the target and what is seen of the source."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Gated = Literal["source", "target", "both"]


class ContextGate(nn.Module):
    """Joins state and context by weights of each that follow from both and the token (Tu 2017).

    z = sigmoid(W [e; s; c]); joined as tanh(z * C c + S s) ("source"), tanh(C c + z * S s)
    ("target") or tanh(z * C c + (1 - z) * S s) ("both"). It stands where the decoder's features are
    made, so that it goes with either order of attention and recurrence.
    """

    def __init__(self, embedding: int, state: int, context: int, gated: Gated) -> None:
        super().__init__()
        self.gated = gated
        self.gate = nn.Linear(embedding + state + context, state)
        self.source = nn.Linear(context, state)
        self.target = nn.Linear(state, state, bias=False)

    def forward(
        self,
        states: Float[Tensor, "*N D"],
        context: Float[Tensor, "*N C"],
        embedded: Float[Tensor, "*N E"],
    ) -> Float[Tensor, "*N D"]:
        """Join them."""
        gate = self.gate(torch.cat([embedded, states, context], -1)).sigmoid()
        source, target = self.source(context), self.target(states)
        if self.gated != "target":
            source = gate * source
        if self.gated == "target":
            target = gate * target
        elif self.gated == "both":
            target = (1 - gate) * target
        return torch.tanh(source + target)
