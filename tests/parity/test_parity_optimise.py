"""Learning-rate schedules against their formulas and against torch's schedulers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from transduce.train.optimise import Cosine, InverseSquareRoot, OptimiserBlueprint, Plateau


@pytest.mark.parametrize("warmup", [1, 4, 4000])
def test_inverse_square_root_equals_the_formula(warmup: int) -> None:
    """min(step^-0.5, step * warmup^-1.5) (Vaswani 2017, 5.3), here with 1 as its highest value."""
    schedule = InverseSquareRoot(warmup=warmup)
    for step in (1, 2, 3, 4, 5, 100, 3999, 4000, 4001, 100_000):
        formula = min(step**-0.5, step * warmup**-1.5) / warmup**-0.5
        assert schedule.factor(step, 10**6, []) == pytest.approx(formula)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_equals_torch(floor: float) -> None:
    last = 20
    schedule = Cosine(warmup=0, floor=floor)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = CosineAnnealingLR(optimiser, last, floor)
    for step in range(1, last + 1):
        optimiser.step()
        theirs.step()
        assert schedule.factor(step, last, []) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4))
@settings(max_examples=200)
def test_plateau_equals_torch(scores: list[int], patience: int) -> None:
    """torch's patience is how many bad validations are forgiven, ours how many make a cut."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = ReduceLROnPlateau(
        optimiser, "max", 0.5, patience - 1, threshold=0, threshold_mode="abs", eps=0
    )
    for score in scores:
        theirs.step(score)
    ours = Plateau(warmup=0, cut=0.5, patience=patience)
    factor = ours.factor(1, 1, [float(score) for score in scores])
    assert factor == pytest.approx(optimiser.param_groups[0]["lr"])


def test_the_optimiser_is_adamw() -> None:
    """Against the formulas (Kingma 2015, algorithm 1; Loshchilov 2019, algorithm 2) in float64."""
    rate, decay, first, second, epsilon = 0.1, 0.3, 0.8, 0.9, 1e-6
    blueprint = OptimiserBlueprint(
        rate=rate, betas=(first, second), epsilon=epsilon, weight_decay=decay
    )
    torch.manual_seed(1)
    layer = torch.nn.Linear(3, 2, bias=False)
    optimiser = blueprint.build(layer)
    x = layer.weight.detach().double()
    mean, square = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for step in range(1, 6):
        gradient = torch.randn(2, 3)
        layer.weight.grad = gradient.clone()
        optimiser.step()
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient.double() ** 2
        unbiased, spread = mean / (1 - first**step), square / (1 - second**step)
        x = x - rate * (unbiased / (spread.sqrt() + epsilon) + decay * x)
    torch.testing.assert_close(layer.weight.detach().double(), x, atol=1e-5, rtol=0)
