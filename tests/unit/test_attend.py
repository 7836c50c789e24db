from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from transduce.nn.attend import (
    AdditiveAttentionBlueprint,
    AttentionBlueprint,
    Connection,
    DotAttentionBlueprint,
    FixedContextBlueprint,
    GeneralAttentionBlueprint,
    InitialStateBlueprint,
    LocalMonotonicBlueprint,
    LocalPredictiveBlueprint,
    LocationAttentionBlueprint,
    MultiHeadAttentionBlueprint,
    PerceptronAttentionBlueprint,
    Prepared,
    ScaledDotAttentionBlueprint,
    entmax15,
    fold,
    masked_softmax,
    sparsemax,
)
from transduce.problem import Problem
from transduce.tree import leaves

WIDTH, POSITIONS = 6, 5
MASK = torch.arange(POSITIONS) < torch.tensor([5, 2])[:, None]
ATTENTIONS: list[AttentionBlueprint] = [
    DotAttentionBlueprint(),
    ScaledDotAttentionBlueprint(),
    GeneralAttentionBlueprint(),
    GeneralAttentionBlueprint(normaliser="sparsemax"),
    GeneralAttentionBlueprint(normaliser="entmax15"),
    GeneralAttentionBlueprint(window=LocalMonotonicBlueprint(reach=1)),
    GeneralAttentionBlueprint(window=LocalPredictiveBlueprint(reach=2)),
    AdditiveAttentionBlueprint(),
    PerceptronAttentionBlueprint(),
    LocationAttentionBlueprint(),
    MultiHeadAttentionBlueprint(heads=2, window=LocalMonotonicBlueprint(reach=1)),
]


def attend(part: Connection, query: Tensor, source: Prepared) -> tuple[Tensor, Tensor | None]:
    context, weights, _ = part(query, source, part.begin(source, len(query)))
    return context, weights


def test_fold_lays_the_rows_of_a_source_behind_one_another() -> None:
    x = torch.arange(24).view(6, 2, 2)
    assert torch.equal(fold(x, 2)[1], torch.cat([x[3], x[4], x[5]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax_gives_padding_exactly_nothing(dtype: torch.dtype) -> None:
    scores = torch.full((2, 3, POSITIONS), -1e30, dtype=dtype)
    scores[:, :, 2:] = 1e30
    weights = masked_softmax(scores, MASK[:, None])
    assert weights.dtype == dtype
    assert (weights[1, :, 2:] == 0).all()
    torch.testing.assert_close(weights.float().sum(-1), torch.ones(2, 3), atol=0.01, rtol=0)


@pytest.mark.parametrize("blueprint", ATTENTIONS, ids=str)
def test_hypotheses_meet_their_own_source(blueprint: AttentionBlueprint) -> None:
    """With K rows each, the answer is what each row alone would get; nothing is copied for it."""
    torch.manual_seed(1)
    part = blueprint.build(WIDTH, WIDTH)
    states, query = torch.randn(2, POSITIONS, WIDTH), torch.randn(6, 4, WIDTH)
    source = part.prepare(states, MASK, states[:, 0])
    assert all(len(tensor) == 2 and per_source for tensor, per_source in leaves(source))
    context, weights = attend(part, query, source)
    assert weights is not None
    assert context.shape == (6, 4, WIDTH)
    assert weights.shape == (6, 4, POSITIONS)
    for row in range(6):
        own = slice(row // 3, row // 3 + 1)
        alone = part.prepare(states[own], MASK[own], states[own, 0])
        expected = attend(part, query[row : row + 1], alone)
        torch.testing.assert_close(context[row : row + 1], expected[0])
        torch.testing.assert_close(weights[row : row + 1], expected[1])


def fixed(memory: int) -> Connection:
    return FixedContextBlueprint().build(WIDTH, memory)


def test_a_fixed_context_is_the_summary_at_every_position() -> None:
    states, summary = torch.randn(2, POSITIONS, 3), torch.randn(2, 3)
    part = fixed(3)
    context, weights = attend(part, torch.randn(6, 4, WIDTH), part.prepare(states, MASK, summary))
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
    context, _ = attend(part, torch.randn(2, 4, WIDTH), part.prepare(states, MASK, states[:, 0]))
    assert context.shape == (2, 4, 3)


def test_nothing_of_the_source_is_kept_beside_the_first_state() -> None:
    blueprint = InitialStateBlueprint()
    part = blueprint.build(WIDTH, 3)
    source = part.prepare(torch.randn(2, POSITIONS, 3), MASK, torch.randn(2, 3))
    assert all(tensor.numel() <= 2 for tensor, _ in leaves(source))
    context, weights = attend(part, torch.randn(6, 4, WIDTH), source)
    assert context.shape == (6, 4, blueprint.context_width(WIDTH, 3))
    assert weights is None


@pytest.mark.parametrize("normalise", [sparsemax, entmax15])
def test_sparse_normalisers_give_nothing_to_padding_and_to_what_scores_low(
    normalise: Callable[[Tensor, Tensor], Tensor],
) -> None:
    torch.manual_seed(1)
    scores = 4 * torch.randn(2, 3, POSITIONS)
    weights = normalise(scores, MASK[:, None])
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    assert (weights[1, :, 2:] == 0).all()
    assert (weights[0] == 0).any()
    far = normalise(torch.where(MASK[:, None], scores, 1e30), MASK[:, None])
    assert torch.equal(far, weights)
    assert normalise(scores.bfloat16(), MASK[:, None]).dtype == torch.bfloat16


@pytest.mark.parametrize("normalise", [sparsemax, entmax15])
def test_gradients_of_sparse_normalisers_are_exact(
    normalise: Callable[[Tensor, Tensor], Tensor],
) -> None:
    torch.manual_seed(2)
    for spread in (0.1, 1.0, 5.0):
        scores = (spread * torch.randn(2, 3, POSITIONS, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: normalise(x, MASK[:, None]), scores)


def test_a_local_window_moves_with_the_target_and_stays_in_the_source() -> None:
    part = DotAttentionBlueprint(window=LocalMonotonicBlueprint(reach=1)).build(WIDTH, WIDTH)
    states = torch.randn(2, POSITIONS, WIDTH)
    source = part.prepare(states, MASK, states[:, 0])
    trail, seen = part.begin(source, 2), []
    for query in torch.randn(7, 2, 1, WIDTH):
        _, weights, trail = part(query, source, trail)
        seen.append((weights[:, 0] > 0).int().tolist())
    assert [long for long, _ in seen] == [
        [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1], [0, 0, 0, 1, 1],
    ]  # fmt: skip
    assert all(short == [1, 1, 0, 0, 0] for _, short in seen)


def test_location_attention_refuses_what_it_has_no_place_for() -> None:
    part = LocationAttentionBlueprint(longest=4).build(WIDTH, 3)
    states = torch.randn(2, POSITIONS, 3)
    part.prepare(states, MASK & (torch.arange(POSITIONS) < 4), states[:, 0])
    with pytest.raises(Problem, match=r"connection.longest: a source has 5 positions and .* for 4"):
        part.prepare(states, MASK, states[:, 0])


def test_heads_must_divide_the_width_of_the_decoder() -> None:
    with pytest.raises(Problem, match="4 heads do not divide the decoder's width of 6"):
        MultiHeadAttentionBlueprint().build(WIDTH, 3)
