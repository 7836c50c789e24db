"""Transformer layers against torch's, and positions against the formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from transduce.models.decoders.transformer import DecoderLayer, TransformerDecoderBlueprint
from transduce.models.encoders.transformer import EncoderLayer, TransformerEncoderBlueprint
from transduce.nn.cache import GrowingKV, padding_bias
from transduce.nn.layers import Activation, FeedForward, NormOrder, Residual, TokenTable, normalise
from transduce.nn.multihead import CrossAttention, MultiHead, SelfAttention, everything
from transduce.nn.positions import Sinusoid

WIDTH, HEADS, INNER = 12, 3, 20
ORDERS: tuple[NormOrder, ...] = ("pre", "post")
MASK = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]

Norms = list[tuple[Residual, nn.LayerNorm]]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu", "swiglu")


def copy_attention(ours: MultiHead, theirs: nn.MultiheadAttention) -> None:
    if isinstance(ours, SelfAttention):
        ours.query_key_value.weight.data.copy_(theirs.in_proj_weight)
        ours.query_key_value.bias.data.copy_(theirs.in_proj_bias)
    elif isinstance(ours, CrossAttention):
        ours.query.weight.data.copy_(theirs.in_proj_weight[:WIDTH])
        ours.key_value.weight.data.copy_(theirs.in_proj_weight[WIDTH:])
        ours.query.bias.data.copy_(theirs.in_proj_bias[:WIDTH])
        ours.key_value.bias.data.copy_(theirs.in_proj_bias[WIDTH:])
    ours.out.load_state_dict(theirs.out_proj.state_dict())


def copy_feed_forward(ours: FeedForward, first: nn.Linear, second: nn.Linear) -> None:
    ours[0].load_state_dict(first.state_dict())
    ours[3].load_state_dict(second.state_dict())


def copy_norms(pairs: Norms) -> None:
    for ours, theirs in pairs:
        ours.norm.load_state_dict(theirs.state_dict())


def shake(module: nn.Module) -> None:
    """Move every parameter from where it began, so that no zero or one hides a mistake."""
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)


@pytest.mark.parametrize("order", ORDERS)
def test_encoder_layer_equals_torch(order: NormOrder) -> None:
    torch.manual_seed(1)
    blueprint = TransformerEncoderBlueprint(
        width=WIDTH, heads=HEADS, inner=INNER, norm=order, dropout=0.0
    )
    ours = EncoderLayer(blueprint)
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, INNER, 0.0, batch_first=True, norm_first=order == "pre"
    )
    shake(theirs)
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_feed_forward(ours.feed_forward, theirs.linear1, theirs.linear2)
    copy_norms([(ours.around_self, theirs.norm1), (ours.around_feed, theirs.norm2)])
    x = torch.randn(3, 7, WIDTH)
    out = ours(x, everything(padding_bias(MASK, x.dtype)))
    expected = theirs(x, src_key_padding_mask=~MASK)
    torch.testing.assert_close(out[MASK], expected[MASK], atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_decoder_layer_equals_torch(order: NormOrder) -> None:
    torch.manual_seed(2)
    blueprint = TransformerDecoderBlueprint(
        width=WIDTH, heads=HEADS, inner=INNER, norm=order, dropout=0.0
    )
    ours = DecoderLayer(blueprint, WIDTH)
    theirs = nn.TransformerDecoderLayer(
        WIDTH, HEADS, INNER, 0.0, batch_first=True, norm_first=order == "pre"
    )
    shake(theirs)
    copy_attention(ours.self_attention, theirs.self_attn)
    copy_attention(ours.cross_attention, theirs.multihead_attn)
    copy_feed_forward(ours.feed_forward, theirs.linear1, theirs.linear2)
    copy_norms(
        [
            (ours.around_self, theirs.norm1),
            (ours.around_cross, theirs.norm2),
            (ours.around_feed, theirs.norm3),
        ]
    )
    x, states, length = torch.randn(3, 5, WIDTH), torch.randn(3, 7, WIDTH), torch.zeros(3).long()
    nothing = torch.zeros(3, HEADS, 0, WIDTH // HEADS)
    past = GrowingKV(nothing, nothing)
    source = ours.cross_attention.prepare(states)
    causal = everything(past.causal(length, 5, x.dtype))
    out, _ = ours(x, past, length, causal, source, padding_bias(MASK, x.dtype))
    ahead = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = theirs(x, states, tgt_mask=ahead, memory_key_padding_mask=~MASK)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


def activated(name: str, x: list[float]) -> list[float]:
    """Apply an activation to the inner values of one position, each by its formula."""
    if name == "relu":
        return [max(0.0, value) for value in x]
    if name == "gelu":  # x times the probability that a normal variable is below x
        return [value * (1 + math.erf(value / 2**0.5)) / 2 for value in x]
    gates, values = x[: len(x) // 2], x[len(x) // 2 :]
    return [g / (1 + math.exp(-g)) * value for g, value in zip(gates, values, strict=True)]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward_equals_the_formula(activation: Activation) -> None:
    torch.manual_seed(3)
    ours = FeedForward(WIDTH, INNER, 0.0, activation).double()
    shake(ours)
    first, second = ours[0], ours[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    for row, found in zip(x.flatten(0, 1), ours(x).flatten(0, 1), strict=True):
        inner: Tensor = first.weight @ row + first.bias
        between = torch.tensor(activated(activation, inner.tolist()), dtype=torch.float64)
        torch.testing.assert_close(found, second.weight @ between + second.bias)


def test_rms_norm_equals_the_formula() -> None:
    """x / sqrt(mean of squares) times a learned gain: no mean is taken away, nothing is added."""
    ours = normalise(WIDTH, "rms").double()
    shake(ours)
    (gain,) = ours.parameters()
    x = torch.randn(5, WIDTH, dtype=torch.float64) + 3
    for row, found in zip(x, ours(x), strict=True):
        size = math.sqrt(sum(value**2 for value in row.tolist()) / WIDTH)
        torch.testing.assert_close(found, row / size * gain, atol=1e-6, rtol=0)


def test_sinusoids_equal_the_formula() -> None:
    """PE(p, 2i) = sin(p / 10000^(2i/D)) and PE(p, 2i+1) = cos of the same (Vaswani 2017, 3.5)."""
    width, places = 10, [0, 1, 2, 50, 997]
    x = torch.randn(2, len(places), width)
    out = Sinusoid(width)(x, torch.tensor([places]))
    for column, place in enumerate(places):
        angles = [place / 10000 ** (2 * pair / width) for pair in range(width // 2)]
        formula = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
        expected = x[:, column] + formula
        # an angle of 997 is known to 6e-5 in float32
        torch.testing.assert_close(out[:, column], expected, atol=1e-5 + 1e-7 * place, rtol=0)


def test_token_vectors_have_unit_length_in_the_table_and_unit_variance_where_they_are_read() -> (
    None
):
    table = TokenTable(1000, 64)
    assert table.weight.norm(dim=1).mean().item() == pytest.approx(1, abs=0.02)
    tokens = torch.arange(1000)[None]
    assert table(tokens).std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(table(tokens)[0], table.weight * 8)
