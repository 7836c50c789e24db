"""Every model learns from every part it has, with dropout, in either precision."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_models import DECODERS, ENCODERS, case

from transduce.sequences import Sequences

PARTS = [(encoder, "recurrent") for encoder in ENCODERS] + [
    ("recurrent", name) for name in DECODERS
]


@pytest.mark.parametrize(("encoder", "decoder"), PARTS, ids=" ".join)
def test_every_parameter_is_used_and_bf16_is_near_fp32(encoder: str, decoder: str) -> None:
    model, sources, prompt, _ = case(encoder, decoder, 5, 9, 1)
    tokens = torch.cat([prompt, torch.randint(3, 9, (5, 4))], 1)
    labels = Sequences(tokens, torch.tensor([5, 3, 4, 1, 2]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.dim() > 1 else 1)
    losses = []
    for precise, learning in itertools.product((True, False), (False, True)):
        model.train(learning)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            loss, _ = model(sources, labels, labels)
        loss.backward()
        gradients = {name: value.grad for name, value in model.named_parameters()}
        unused = [n for n, g in gradients.items() if g is None or not g.isfinite().all()]
        assert not unused
        losses += [] if learning else [loss.detach()]
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.05)
