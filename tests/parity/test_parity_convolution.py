"""The convolutional encoder and decoder against Gehring (2017), written as plain loops."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transduce.models.decoders.convolutional import ConvolutionalDecoderBlueprint
from transduce.models.encoders.convolutional import ConvolutionalEncoderBlueprint
from transduce.models.interface import Bank
from transduce.nn.convolution import GatedConvolution, divide_gradient
from transduce.sequences import Sequences

WIDTH, LAYERS, KERNEL, SYMBOLS = 6, 3, 3, 9
LENGTHS = (5, 2)
HALF = math.sqrt(0.5)

Vectors = list[list[float]]


def linear(layer: nn.Module, x: list[float]) -> list[float]:
    """W x + b, and W x without a bias."""
    weight: list[list[float]] = layer.get_parameter("weight").double().tolist()
    parameters = dict(layer.named_parameters())
    bias = parameters["bias"].double().tolist() if "bias" in parameters else [0.0] * len(weight)
    rows = zip(weight, bias, strict=True)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]


def gated(layer: GatedConvolution, window: Vectors) -> list[float]:
    """v([A B]) = A * sigmoid(B), where [A B] = W X + b (section 3.2)."""
    weight, bias = layer.convolution.weight.double(), layer.convolution.get_parameter("bias")
    both = []
    for unit in range(2 * WIDTH):
        total = float(bias[unit])
        for place, vector in enumerate(window):
            total += sum(float(weight[unit, i, place]) * vector[i] for i in range(WIDTH))
        both.append(total)
    halves = zip(both[:WIDTH], both[WIDTH:], strict=True)
    return [a / (1 + math.exp(-b)) for a, b in halves]


def half_sum(x: list[float], y: list[float]) -> list[float]:
    """A sum of two, times sqrt(0.5) (section 3.4)."""
    return [(a + b) * HALF for a, b in zip(x, y, strict=True)]


def embed(table: nn.Embedding, tokens: list[int]) -> Vectors:
    """e = w + p, with the sines and cosines of the position."""
    vectors = []
    for place, token in enumerate(tokens):
        vector = (table.weight[token].double() * math.sqrt(WIDTH)).tolist()
        for i in range(WIDTH // 2):
            angle = place / 10000 ** (2 * i / WIDTH)
            vector[i] += math.sin(angle)
            vector[WIDTH // 2 + i] += math.cos(angle)
        vectors.append(vector)
    return vectors


def zeros(count: int) -> Vectors:
    return [[0.0] * WIDTH for _ in range(count)]


def close(found: Tensor, wanted: Vectors) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(wanted).double(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_encoder_equals_the_formulas() -> None:
    torch.manual_seed(1)
    blueprint = ConvolutionalEncoderBlueprint(width=WIDTH, layers=LAYERS, kernel=KERNEL)
    encoder = blueprint.build(SYMBOLS).eval()
    source = Sequences(torch.randint(0, SYMBOLS, (2, 5)), torch.tensor(LENGTHS))
    bank = encoder(source)
    for row, size in enumerate(LENGTHS):
        embedded = embed(encoder.embedding, source.data[row, :size].tolist())
        states = embedded
        for layer in encoder.layers:
            assert isinstance(layer, GatedConvolution)
            padded = zeros(1) + states + zeros(1)
            out = [gated(layer, padded[place : place + KERNEL]) for place in range(size)]
            states = [half_sum(x, h) for x, h in zip(states, out, strict=True)]
        states = [linear(encoder.out, state) for state in states]
        close(bank.states[row, :size], states)
        assert bank.embedded is not None
        close(bank.embedded[row, :size], embedded)
        close(bank.summary[row, None], [[sum(v) / size for v in zip(*states, strict=True)]])


@torch.no_grad()
def check_decoder(memory: int, embedded: Tensor | None) -> None:
    """Compare with d = W h + b + g, a = softmax(d . z), c = sum a (z + e) (section 3.3)."""
    blueprint = ConvolutionalDecoderBlueprint(width=WIDTH, layers=LAYERS, kernel=KERNEL)
    decoder = blueprint.build(SYMBOLS, memory).eval()
    states, mask = torch.randn(2, 5, memory), torch.arange(5) < torch.tensor(LENGTHS)[:, None]
    tokens = torch.randint(0, SYMBOLS, (2, 4))
    out = decoder(tokens, {"source": Bank(states, mask, states[:, 0], embedded)})
    bring = nn.Linear(WIDTH, WIDTH, bias=False)
    bring.weight.copy_(torch.eye(WIDTH))
    bring = decoder.bring if isinstance(decoder.bring, nn.Linear) else bring
    for row, size in enumerate(LENGTHS):
        keys = states[row, :size].double().tolist()
        values = keys
        if embedded is not None:
            values = [
                half_sum(z, e) for z, e in zip(keys, embedded[row, :size].tolist(), strict=True)
            ]
        keys, values = ([linear(bring, v) for v in part] for part in (keys, values))
        vectors = embed(decoder.embedding, tokens[row].tolist())
        x = vectors
        for layer in decoder.layers:
            padded, after = zeros(KERNEL - 1) + x, []
            for place, token in enumerate(vectors):
                h = gated(layer.get_submodule("convolution"), padded[place : place + KERNEL])  # type: ignore[arg-type]
                query = half_sum(linear(layer.get_submodule("query"), h), token)
                scores = [sum(q * k for q, k in zip(query, key, strict=True)) for key in keys]
                weights = [math.exp(score / math.sqrt(WIDTH)) for score in scores]
                context = [
                    math.sqrt(size) * sum(w * v[i] for w, v in zip(weights, values, strict=True))
                    for i in range(WIDTH)
                ]
                context = linear(
                    layer.get_submodule("out"), [total / sum(weights) for total in context]
                )
                after.append(half_sum(x[place], half_sum(h, context)))
            x = after
        close(out.features[row], x)


def test_the_decoder_equals_the_formulas() -> None:
    torch.manual_seed(2)
    check_decoder(WIDTH, torch.randn(2, 5, WIDTH))


def test_the_decoder_reads_the_states_of_any_encoder() -> None:
    torch.manual_seed(3)
    check_decoder(WIDTH, None)
    check_decoder(4, None)


def test_a_gradient_is_divided_and_a_value_is_not() -> None:
    x = torch.randn(5, requires_grad=True)
    y = divide_gradient(x, 4)
    assert torch.equal(y, x)
    (found,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(found, torch.full_like(x, 0.25))
