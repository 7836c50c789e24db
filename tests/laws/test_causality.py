"""No decoder looks ahead: what follows a token has no gradient from any later token.

It has one from every token before, except that memories of earlier segments have none (Dai 2019).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_models import DECODERS, Case, case
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.nn.span import SegmentSpanBlueprint


def check_gradients(given: Case, decoder: Part) -> None:
    """Compare which tokens a prediction has a gradient from with those that it should have."""
    model, sources, prompt, _ = given
    tokens = torch.cat([prompt, torch.randint(0, 9, (len(prompt), 4))], 1)
    embedded: list[Tensor] = []

    def note(_: nn.Module, __: Any, out: Tensor) -> None:
        embedded.append(out)

    listening = model.decoder.embedding.register_forward_hook(note)
    span, truncate = (getattr(decoder, setting, None) for setting in ("span", "truncate"))
    cut = span.length if isinstance(span, SegmentSpanBlueprint) else truncate or 5
    log_probs, _ = model.extend(tokens, model.start(model.encode(sources)))
    listening.remove()
    for place in range(5):
        since = place // cut * cut  # no gradient goes further back
        said = log_probs[:, place, 3].sum()
        (gradient,) = torch.autograd.grad(said, embedded, retain_graph=True)
        reached = gradient.abs().sum((0, 2)) > 0
        assert reached.tolist() == [since <= before <= place for before in range(5)]


@pytest.mark.parametrize("name", DECODERS)
def test_later_tokens_have_no_gradient(name: str) -> None:
    check_gradients(case("transformer", name, 3, 9, 1), DECODERS[name])
