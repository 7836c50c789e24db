"""Segment recurrence against loops in float64 that read segment by segment and keep memories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
import torch
from jaxtyping import Float, Int
from test_parity_positions import DEEP, HEADS, WIDTH, transformer_xl
from torch import Tensor, nn

from transduce.models.decoders.transformer import (
    DecoderLayer,
    TransformerDecoder,
    TransformerDecoderBlueprint,
)
from transduce.models.encoders.transformer import TransformerEncoder, TransformerEncoderBlueprint
from transduce.models.interface import Bank, Memory
from transduce.nn.cache import padding_bias
from transduce.nn.multihead import SelfAttention
from transduce.nn.relative import TransformerXlInHeads
from transduce.nn.span import SegmentSpan
from transduce.sequences import Sequences

Model = TypeVar("Model", bound=nn.Module)
SIZE, SYMBOLS, LENGTHS = 9, 7, torch.tensor([9, 5])
SEGMENTS = [(3, 3), (2, 5), (4, 1), (3, 0), (20, 4)]  # length, memory


def sizes(length: int, memory: int, layers: int = 2) -> dict[str, Any]:
    span = {"kind": "segments", "length": length, "memory": memory}
    return {"width": WIDTH, "heads": HEADS, "inner": 8, "layers": layers, "span": span}


def encoder(segments: tuple[int, int], layers: int = 2, norm: str = "pre") -> TransformerEncoder:
    facts = sizes(*segments, layers) | {"positions": "transformer_xl", "norm": norm}
    return shaken(TransformerEncoderBlueprint.model_validate(facts).build(SYMBOLS))


def decoder(segments: tuple[int, int], layers: int = 2, norm: str = "pre") -> TransformerDecoder:
    facts = sizes(*segments, layers) | {"positions": "transformer_xl", "norm": norm}
    return shaken(TransformerDecoderBlueprint.model_validate(facts).build(SYMBOLS, 5))


def shaken(model: Model) -> Model:
    torch.manual_seed(1)
    for parameter in model.double().eval().parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def bank() -> Memory:
    torch.manual_seed(2)
    states = torch.randn(2, 4, 5, dtype=torch.float64)
    return {"source": Bank(states, torch.ones(2, 4, dtype=torch.bool), states[:, 0])}


def attend(attention: SelfAttention, x: Tensor, memory: Tensor, one_way: bool) -> Tensor:
    """Attend from a segment to its memory and itself: for every head, query and key on its own."""
    known, inside = torch.cat([memory, x]), attention.in_heads
    assert isinstance(inside, TransformerXlInHeads)
    query = attention.query_key_value(x)[:, :WIDTH]
    keys, values = attention.query_key_value(known)[:, WIDTH:].chunk(2, -1)
    rows = []
    for place in range(len(x)):
        mixed, here = [], len(memory) + place
        for head in range(HEADS):
            own = slice(head * DEEP, (head + 1) * DEEP)
            scores = [
                transformer_xl(inside, head, here - other, query[place, own], keys[other, own])
                for other in range(here + 1 if one_way else len(known))
            ]
            weights = (torch.stack(scores) / DEEP**0.5).softmax(0)
            mixed.append(weights @ values[: len(weights), own])
        rows.append(torch.cat(mixed))
    out: Tensor = attention.out(torch.stack(rows))
    return out


def read(
    layers: Sequence[Any],
    x: Float[Tensor, "S D"],
    segments: tuple[int, int],
    states: Float[Tensor, "S D"] | None = None,
) -> Float[Tensor, "S D"]:
    """Read one segment after another through all layers, each of which has a memory (Dai 2019)."""
    memories = [x[:0]] * len(layers)
    out = []
    for part in torch.split(x, segments[0]):
        for number, layer in enumerate(layers):
            entered, memory = layer.around_self.enter(part), memories[number]
            mixed = attend(layer.self_attention, entered, memory, isinstance(layer, DecoderLayer))
            known = torch.cat([memory, entered])
            memories[number] = known[max(0, len(known) - segments[1]) :].detach()
            part = layer.around_self.leave(part, mixed)
            if states is not None:
                source = layer.cross_attention.prepare(states[None])
                bias = padding_bias(torch.ones(1, len(states), dtype=torch.bool), x.dtype)
                entered = layer.around_cross.enter(part)[None]
                found = layer.cross_attention(entered, source, bias)[0]
                part = layer.around_cross.leave(part, found)
            part = layer.around_feed.leave(part, layer.feed_forward(layer.around_feed.enter(part)))
        out.append(part)
    return torch.cat(out)


def same_gradients(found: Tensor, expected: Tensor, model: nn.Module) -> None:
    """Compare what two results say of every parameter, where each value weighs differently."""
    weights = torch.randn_like(found)
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), parameters, allow_unused=True),
        torch.autograd.grad((expected * weights).sum(), parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_an_encoder_equals_one_that_keeps_memories(segments: tuple[int, int], norm: str) -> None:
    model = encoder(segments, norm=norm)
    tokens = torch.randint(0, SYMBOLS, (2, SIZE))
    states = model(Sequences(tokens, LENGTHS)).states
    found, expected = [], []
    for row, length in enumerate(LENGTHS.tolist()):
        embedded = model.embedding(tokens[row, :length])
        found.append(states[row, :length])
        expected.append(model.norm(read(list(model.layers), embedded, segments)))
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), atol=1e-6, rtol=0)
    same_gradients(torch.cat(found), torch.cat(expected), model)


def parts_of(
    model: TransformerDecoder, tokens: Int[Tensor, "N T"], cuts: list[int], capacity: int | None
) -> Float[Tensor, "N T D"]:
    state, found = model.start(bank(), 1, capacity), []
    for part in torch.split(tokens, cuts, 1):
        out, state = model.extend(part, state)
        found.append(out.features)
    return torch.cat(found, 1)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_a_decoder_equals_one_that_keeps_memories(segments: tuple[int, int], norm: str) -> None:
    model, tokens = decoder(segments, norm=norm), torch.randint(0, SYMBOLS, (2, SIZE))
    memory = bank()
    found = model(tokens, memory).features
    expected = torch.stack(
        [
            model.norm(read(list(model.layers), embedded, segments, states))
            for embedded, states in zip(
                model.embedding(tokens), memory["source"].states, strict=True
            )
        ]
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    same_gradients(found, expected, model)
    with torch.no_grad():
        for capacity in (None, SIZE, SIZE + 3):
            for cuts in ([1] * SIZE, [4, 5], [3, 3, 3], [1, 7, 1]):
                onwards = parts_of(model, tokens, cuts, capacity)
                torch.testing.assert_close(onwards, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("cuts", [[SIZE], [4, 5], [6, 3], [1] * SIZE])
def test_no_gradient_enters_an_earlier_segment(cuts: list[int]) -> None:
    """However the target is read, its own segment passes gradients and those before do not."""
    model, tokens = decoder((3, 4)), torch.randint(0, SYMBOLS, (2, SIZE))
    embedded: list[Tensor] = []
    hook = model.embedding.register_forward_hook(lambda _, __, out: embedded.append(out))
    features = parts_of(model, tokens, cuts, None)
    hook.remove()
    gradients = torch.autograd.grad(features[:, 7].square().sum(), embedded, allow_unused=True)
    zeros = (torch.zeros_like(x) for x in embedded)
    every = torch.cat([z if g is None else g for g, z in zip(gradients, zeros, strict=True)], 1)
    reached = every.abs().sum((0, 2)) > 0
    assert reached.tolist() == [False] * 6 + [True, True, False]


def test_no_gradient_of_an_encoder_leaves_its_segment() -> None:
    model = encoder((3, 4))
    embedded: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _, __, out: embedded.append(out))
    states = model(Sequences(torch.randint(0, SYMBOLS, (1, SIZE)), torch.tensor([SIZE]))).states
    (gradient,) = torch.autograd.grad(states[:, 4].square().sum(), embedded)
    reached = gradient.abs().sum((0, 2)) > 0
    assert reached.tolist() == [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_each_layer_sees_one_segment_farther(layers: int) -> None:
    """A memory as long as a segment brings one segment for each layer, and not one place more."""
    tokens = torch.randint(1, SYMBOLS, (2, 10))
    tokens[1] = tokens[0]
    tokens[1, 0] = 0
    far = [place < 2 * (layers + 1) for place in range(10)]
    with torch.no_grad():
        states = encoder((2, 2), layers)(Sequences(tokens, torch.tensor([10, 10]))).states
        alike = {"source": Bank(torch.ones(2, 1, 5).double(), torch.ones(2, 1).bool(), tokens)}
        features = decoder((2, 2), layers)(tokens, alike).features
    for found in (states, features):
        assert ((found[0] - found[1]).abs().amax(1) > 1e-9).tolist() == far


@torch.no_grad()
def test_what_no_later_token_can_see_is_forgotten() -> None:
    model, steps = decoder((4, 3)), 50
    tokens = torch.randint(0, SYMBOLS, (2, steps))
    state, found = model.start(bank()), []
    for step in range(steps):
        out, state = model.extend(tokens[:, step : step + 1], state)
        found.append(out.features)
        kept = {tuple(past.keys.shape) for past in state.past}
        assert kept == {(2, HEADS, min(step + 1, 3 + (step + 1) % 4), DEEP)}
        held = [past.values.untyped_storage().nbytes() for past in state.past]
        assert max(held) <= 2 * WIDTH * 8 * 7, "and its memory is free"
    whole = model(tokens, bank()).features
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-9, rtol=0)


def test_the_cost_grows_with_the_length_alone() -> None:
    model = encoder((8, 16))
    assert isinstance(model.span, SegmentSpan)
    mask = torch.ones(1, 1024, dtype=torch.bool)
    scores = 0
    for block in model.span.blocks(mask, model.positions, torch.float32):
        assert block.bias is not None
        scores += 8 * block.bias.shape[-1]
    assert scores <= 1024 * (8 + 16)
