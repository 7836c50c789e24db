"""Multi-head attention and its caches against torch.nn.MultiheadAttention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transduce.nn.cache import KV, FixedKV, GrowingKV, hide, padding_bias
from transduce.nn.multihead import CrossAttention, MultiHead, SelfAttention, everything

WIDTH, HEADS, MEMORY = 12, 3, 10
MASK = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]


def copy_weights(ours: MultiHead, theirs: nn.MultiheadAttention) -> None:
    """Copy torch's weights, which it keeps as one matrix or, for a foreign memory, as three."""
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    if isinstance(ours, SelfAttention):
        ours.query_key_value.weight.data.copy_(theirs.in_proj_weight)
        ours.query_key_value.bias.data.copy_(theirs.in_proj_bias)
    elif isinstance(ours, CrossAttention):
        if theirs.in_proj_weight is None:
            query, keys, values = theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight
        else:
            query, keys, values = theirs.in_proj_weight.chunk(3)
        ours.query.weight.data.copy_(query)
        ours.key_value.weight.data.copy_(torch.cat([keys, values]))
        ours.query.bias.data.copy_(theirs.in_proj_bias[:WIDTH])
        ours.key_value.bias.data.copy_(theirs.in_proj_bias[WIDTH:])
    ours.out.load_state_dict(theirs.out_proj.state_dict())


def self_attentions(seed: int) -> tuple[SelfAttention, nn.MultiheadAttention]:
    torch.manual_seed(seed)
    ours, theirs = (
        SelfAttention(WIDTH, HEADS),
        nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
    )
    copy_weights(ours, theirs)
    return ours, theirs


def test_self_attention_equals_torch() -> None:
    ours, theirs = self_attentions(1)
    x = torch.randn(3, 7, WIDTH)
    expected, _ = theirs(x, x, x, key_padding_mask=~MASK)
    out = ours(x, everything(padding_bias(MASK, x.dtype)))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("memory", [WIDTH, MEMORY])
@pytest.mark.parametrize("width", [1, 4])
def test_cross_attention_equals_torch(memory: int, width: int) -> None:
    torch.manual_seed(2)
    ours = CrossAttention(WIDTH, HEADS, memory)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=memory, vdim=memory, batch_first=True)
    copy_weights(ours, theirs)
    x, states = torch.randn(3 * width, 5, WIDTH), torch.randn(3, 7, memory)
    repeated = states.repeat_interleave(width, 0)
    hidden = ~MASK.repeat_interleave(width, 0)
    expected, _ = theirs(x, repeated, repeated, key_padding_mask=hidden)
    out = ours(x, ours.prepare(states), padding_bias(MASK, x.dtype))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def test_watched_weights_equal_torch() -> None:
    ours, theirs = self_attentions(3)
    x = torch.randn(3, 7, WIDTH)
    _, expected = theirs(x, x, x, key_padding_mask=~MASK, average_attn_weights=False)
    seen: list[Tensor] = []
    ours.weights.register_forward_hook(lambda module, inputs, out: seen.append(out))
    ours(x, everything(padding_bias(MASK, x.dtype)))
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=0)
    assert (seen[0].masked_select(~MASK[:, None, None]) == 0).all()


def empty(capacity: int | None) -> KV:
    shape = (3, HEADS, capacity or 0, WIDTH // HEADS)
    kind = GrowingKV if capacity is None else FixedKV
    return kind(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("capacity", [None, 7, 11])
@pytest.mark.parametrize("cuts", [[7], [1] * 7, [3, 1, 3], [1, 6]])
def test_cached_attention_equals_one_causal_pass(capacity: int | None, cuts: list[int]) -> None:
    ours, theirs = self_attentions(4)
    x = torch.randn(3, 7, WIDTH)
    ahead = torch.ones(7, 7, dtype=torch.bool).triu(1)
    expected, _ = theirs(x, x, x, attn_mask=ahead)
    past, length, outs = empty(capacity), torch.zeros(3, dtype=torch.long), []
    for part in torch.split(x, cuts, 1):
        bias = past.causal(length, part.shape[1], x.dtype)
        out, past = ours.extend(part, past, length, everything(bias))
        length = length + part.shape[1]
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), expected, atol=1e-5, rtol=0)


def test_rows_of_a_fixed_cache_may_differ_in_length() -> None:
    """A row that has read more than its neighbour still sees its own past and nothing else."""
    ours, theirs = self_attentions(5)
    x, lengths = torch.randn(3, 7, WIDTH), torch.tensor([6, 2, 4])
    past = empty(9)
    for row, size in enumerate(lengths.tolist()):
        _, keys, values = ours.project(x[row : row + 1, :size])
        past.keys[row, :, :size], past.values[row, :, :size] = keys[0], values[0]
    token = x[torch.arange(3), lengths][:, None]
    out, _ = ours.extend(token, past, lengths, everything(past.causal(lengths, 1, x.dtype)))
    for row, size in enumerate(lengths.tolist()):
        seen = x[row : row + 1, : size + 1]
        expected, _ = theirs(seen[:, -1:], seen, seen)
        torch.testing.assert_close(out[row : row + 1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_hidden_gets_no_weight_at_all(dtype: torch.dtype) -> None:
    scores = torch.tensor([-80.0, 80.0, 90.0], dtype=dtype)
    weights = (scores + hide(torch.tensor([False, True, True]), dtype)).softmax(-1)
    assert weights.tolist() == [1.0, 0.0, 0.0]
