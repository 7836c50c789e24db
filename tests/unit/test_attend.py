from __future__ import annotations

import pytest
import torch

from transduce.nn.attend import (
    AdditiveAttentionBlueprint,
    Connection,
    DotAttentionBlueprint,
    FixedContextBlueprint,
    GeneralAttentionBlueprint,
    fold,
    masked_softmax,
)
from transduce.tree import leaves

WIDTH, POSITIONS = 6, 5
MASK = torch.arange(POSITIONS) < torch.tensor([5, 2])[:, None]
ATTENTIONS = [DotAttentionBlueprint(), GeneralAttentionBlueprint(), AdditiveAttentionBlueprint()]


def test_fold_lays_the_rows_of_a_source_behind_one_another() -> None:
    x = torch.arange(24).view(6, 2, 2)
    assert torch.equal(fold(x, 2)[1], torch.cat([x[3], x[4], x[5]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_gives_padding_exactly_nothing(dtype: torch.dtype) -> None:
    scores = torch.full((2, 3, POSITIONS), -1e30, dtype=dtype)
    scores[:, :, 2:] = 1e30
    weights = masked_softmax(scores, MASK)
    assert weights.dtype == dtype
    assert (weights[1, :, 2:] == 0).all()
    torch.testing.assert_close(weights.float().sum(-1), torch.ones(2, 3), atol=0.01, rtol=0)


@pytest.mark.parametrize("blueprint", ATTENTIONS, ids=lambda blueprint: blueprint.kind)
def test_hypotheses_meet_their_own_source(blueprint: DotAttentionBlueprint) -> None:
    """With K rows each, the answer is what each row alone would get; nothing is copied for it."""
    torch.manual_seed(1)
    part = blueprint.build(WIDTH, WIDTH)
    states, query = torch.randn(2, POSITIONS, WIDTH), torch.randn(6, 4, WIDTH)
    source = part.prepare(states, MASK, states[:, 0])
    assert all(len(tensor) == 2 and per_source for tensor, per_source in leaves(source))
    context, weights = part(query, source)
    assert context.shape == (6, 4, WIDTH)
    assert weights.shape == (6, 4, POSITIONS)
    for row in range(6):
        own = slice(row // 3, row // 3 + 1)
        alone = part.prepare(states[own], MASK[own], states[own, 0])
        expected = part(query[row : row + 1], alone)
        torch.testing.assert_close(context[row : row + 1], expected[0])
        torch.testing.assert_close(weights[row : row + 1], expected[1])


def fixed(memory: int) -> Connection:
    return FixedContextBlueprint().build(WIDTH, memory)


def test_a_fixed_context_is_the_summary_at_every_position() -> None:
    states, summary = torch.randn(2, POSITIONS, 3), torch.randn(2, 3)
    part = fixed(3)
    context, weights = part(torch.randn(6, 4, WIDTH), part.prepare(states, MASK, summary))
    assert weights is None
    for row in range(6):
        assert torch.equal(context[row], summary[row // 3].expand(4, 3))


def test_a_fixed_context_keeps_nothing_but_the_summary() -> None:
    states, summary = torch.randn(2, POSITIONS, 3), torch.randn(2, 3)
    source = fixed(3).prepare(states, MASK, summary)
    assert sum(tensor.numel() for tensor, _ in leaves(source)) == summary.numel() + 2


def test_additive_attention_is_as_wide_as_asked() -> None:
    default = AdditiveAttentionBlueprint().build(WIDTH, 3)
    narrow = AdditiveAttentionBlueprint(width=4).build(WIDTH, 3)
    assert [part.get_parameter("energy.weight").shape[1] for part in (default, narrow)] == [6, 4]


def test_general_attention_joins_unequal_widths() -> None:
    part = GeneralAttentionBlueprint().build(WIDTH, 3)
    states = torch.randn(2, POSITIONS, 3)
    context, _ = part(torch.randn(2, 4, WIDTH), part.prepare(states, MASK, states[:, 0]))
    assert context.shape == (2, 4, 3)
