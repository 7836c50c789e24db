"""Every model learns from every part it has, with dropout, in each precision."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_models import DECODERS, ENCODERS, case

from transduce.sequences import Sequences
from transduce.train.precision import TYPES, Precision

CPU = torch.device("cpu")

PARTS = [(encoder, "recurrent") for encoder in ENCODERS] + [
    ("recurrent", name) for name in DECODERS
]


@pytest.mark.parametrize(("encoder", "decoder"), PARTS, ids=" ".join)
def test_every_parameter_is_used_and_half_types_are_near_fp32(encoder: str, decoder: str) -> None:
    model, sources, prompt, _ = case(encoder, decoder, 5, 9, 1)
    tokens = torch.cat([prompt, torch.randint(3, 9, (5, 4))], 1)
    labels = Sequences(tokens, torch.tensor([5, 3, 4, 1, 2]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.dim() > 1 else 1)
    losses = []
    for dtype, learning in itertools.product(TYPES.values(), (False, True)):
        model.train(learning)
        model.zero_grad()
        with Precision(dtype, "test").autocast(CPU):
            loss, _ = model(sources, labels, labels)
        loss.backward()
        gradients = {name: value.grad for name, value in model.named_parameters()}
        unused = [n for n, g in gradients.items() if g is None or not g.isfinite().all()]
        assert not unused
        losses += [] if learning else [loss.detach()]
    for half, (relative, absolute) in zip(losses[1:], ((0.02, 0.05), (0.002, 0.01)), strict=True):
        torch.testing.assert_close(half, losses[0], rtol=relative, atol=absolute)
