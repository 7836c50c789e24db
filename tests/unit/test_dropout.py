from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from transduce.nn.dropout import Dropout, MaskPool, drawing_from

SMALL, PARTS = 1 << 12, 4


def small(seed: int = 1, step: int = 0) -> MaskPool:
    pool = MaskPool(seed, SMALL, PARTS)
    pool.seek(step)
    return pool


def draws(pool: MaskPool) -> Tensor:
    """What a few layers of different rates and shapes draw, one after another."""
    uses = [(300, 0.2), (1000, 0.5), (300, 0.2), (5 * SMALL, 0.2)]
    return torch.cat([pool.apply(torch.ones(size), rate) for size, rate in uses])


def test_the_rate_is_right_at_each_byte_of_a_random_word() -> None:
    """A word of the generator makes eight masks; none of its bytes may be less random."""
    rate, size = 0.2, 1 << 20
    pool = MaskPool(3, size, 4)
    pool.apply(torch.ones(1), rate)
    ((_, mask),) = pool._pools.items()
    dropped = (mask == 0).view(-1, 8).double()
    exact = round(rate * 256) / 256
    error = math.sqrt(exact * (1 - exact) / len(dropped))
    assert (dropped.mean(0) - exact).abs().max() < 5 * error
    centred = dropped - dropped.mean(0)
    covariance = centred.T @ centred / len(dropped)
    independent = (covariance - covariance.diag().diag()).abs().max()
    assert independent < 5 * exact * (1 - exact) / math.sqrt(len(dropped))


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_the_rest_is_scaled_so_that_the_mean_stays(rate: float) -> None:
    out = MaskPool(1, 1 << 18, 4).apply(torch.ones(1 << 16), rate)
    dropped = round(rate * 256) / 256
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - dropped)))
    error = math.sqrt(dropped / (1 - dropped) / len(out))
    assert abs(out.mean().item() - 1) < 5 * error


def test_the_masks_of_a_step_do_not_depend_on_the_steps_before() -> None:
    step = 2 * PARTS + 3
    expected = draws(small(step=step))
    walked = small()
    for n in range(step + 1):
        walked.seek(n)
        draws(walked)
    walked.seek(step)
    back = small(step=step + 5)
    draws(back)
    back.seek(step)
    jumped = small(step=1)
    draws(jumped)
    jumped.seek(step)
    for pool in (walked, back, jumped):
        assert torch.equal(draws(pool), expected)


def test_a_walk_of_single_steps_is_a_seek_too() -> None:
    """Going one step on redraws one part in place; that alone must be enough."""
    walked = small()
    draws(walked)
    for step in range(1, 3 * PARTS):
        walked.seek(step)
        assert torch.equal(draws(walked), draws(small(step=step)))


def test_steps_and_seeds_differ() -> None:
    found = [draws(small(seed, step)) for seed, step in [(1, 0), (1, 1), (1, 2), (2, 0)]]
    for one in range(len(found)):
        for other in range(one):
            assert not torch.equal(found[one], found[other])


def test_after_as_many_steps_as_parts_every_mask_is_new() -> None:
    pool = small()
    pool.apply(torch.ones(1), 0.5)
    ((_, mask),) = pool._pools.items()
    before = mask.clone()
    for step in range(1, PARTS + 1):
        pool.seek(step)
    parts = zip(mask.view(PARTS, -1), before.view(PARTS, -1), strict=True)
    assert all(not torch.equal(new, old) for new, old in parts)


@pytest.mark.parametrize("size", [1, SMALL // 2, SMALL // 2 + 1, SMALL, 5 * SMALL + 7])
def test_inputs_may_be_larger_than_the_pool(size: int) -> None:
    out = small().apply(torch.ones(size, 2, 1), 0.25)
    assert out.shape == (size, 2, 1)
    if size > 1:
        assert 0.15 < (out == 0).double().mean() < 0.35


def test_the_gradient_meets_the_same_mask() -> None:
    for size in (100, 3 * SMALL):
        x = torch.ones(size, requires_grad=True)
        out = small().apply(x, 0.5)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert torch.equal(gradient, out.detach())


def test_a_seek_between_forward_and_backward_is_an_error_and_not_a_wrong_gradient() -> None:
    pool = small()
    x = torch.ones(100, requires_grad=True)
    out = pool.apply(x, 0.5).sum()
    pool.seek(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(out, x)


def test_the_type_stays() -> None:
    assert small().apply(torch.ones(10, dtype=torch.bfloat16), 0.5).dtype == torch.bfloat16


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    x = torch.randn(50)
    with drawing_from(small()):
        assert torch.equal(Dropout(0.9).eval()(x), x)
        assert torch.equal(Dropout(0.0)(x), x)


def test_layers_draw_from_the_pool_within_the_block_and_from_torch_outside() -> None:
    x, layer = torch.ones(500), Dropout(0.5)
    with drawing_from(small()):
        inside = layer(x)
    assert torch.equal(inside, small().apply(x, 0.5))
    torch.manual_seed(1)
    outside = layer(x)
    torch.manual_seed(1)
    assert torch.equal(outside, torch.nn.functional.dropout(x, 0.5))


def test_blocks_nest_and_end_even_when_they_fail() -> None:
    x, layer = torch.ones(500), Dropout(0.5)
    with drawing_from(small(1)):
        with pytest.raises(ZeroDivisionError), drawing_from(small(2)):
            raise ZeroDivisionError
        assert torch.equal(layer(x), small(1).apply(x, 0.5))


@pytest.mark.parametrize("rate", [0.001, 0.999])
def test_a_rate_near_an_end_is_rounded_inwards(rate: float) -> None:
    """Rounded to 0 it would drop nothing, rounded to 1 everything."""
    out = MaskPool(1, 1 << 16, 4).apply(torch.ones(1 << 14), rate)
    assert 0 < (out == 0).double().mean() < 1
    assert out.isfinite().all()
