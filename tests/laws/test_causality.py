"""No decoder looks ahead: what follows a token has no gradient from any later token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_models import DECODERS, case
from torch import Tensor, nn


@pytest.mark.parametrize("name", DECODERS)
def test_later_tokens_have_no_gradient(name: str) -> None:
    model, sources, prompt, _ = case("transformer", name, 3, 9, 1)
    tokens = torch.cat([prompt, torch.randint(0, 9, (3, 4))], 1)
    embedded: list[Tensor] = []

    def note(_: nn.Module, __: Any, out: Tensor) -> None:
        embedded.append(out)

    model.decoder.embedding.register_forward_hook(note)
    log_probs, _ = model.extend(tokens, model.start(model.encode(sources)))
    cut = getattr(DECODERS[name], "truncate", None) or 5
    for place in range(5):
        since = place // cut * cut  # where the gradient was last cut
        said = log_probs[:, place, 3].sum()
        (gradient,) = torch.autograd.grad(said, embedded, retain_graph=True)
        reached = gradient.abs().sum((0, 2)) > 0
        assert reached.tolist() == [since <= before <= place for before in range(5)]
