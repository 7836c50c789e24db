"""The coverage loss against the paper, written as plain loops."""

from __future__ import annotations

import torch

from transduce.train.objective.coverage import repeated


def test_the_loss_equals_equation_12() -> None:
    """covloss_t = sum_i min(a_i^t, c_i^t), c^t = sum_t'<t a^t' (See 2017, equations 10 and 12)."""
    torch.manual_seed(1)
    rows, tokens, size = 3, 5, 4
    attention = torch.randn(rows, tokens, size, dtype=torch.float64).mul(2).softmax(-1)
    lengths = [5, 2, 1]
    wanted = 0.0
    for row, length in enumerate(lengths):
        coverage = [0.0] * size
        for step in range(length):
            weights = attention[row, step].tolist()
            wanted += sum(min(a, c) for a, c in zip(weights, coverage, strict=True))
            coverage = [c + a for a, c in zip(weights, coverage, strict=True)]
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    torch.testing.assert_close(repeated(attention, mask), torch.tensor(wanted, dtype=torch.float64))
    torch.testing.assert_close(repeated(attention.float(), mask).double().item(), wanted)


def test_its_gradient_is_that_of_the_formula() -> None:
    torch.manual_seed(2)
    scores = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    assert torch.autograd.gradcheck(lambda x: repeated(x.softmax(-1), mask), scores)
