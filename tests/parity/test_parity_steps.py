"""Layers and decoders read step by step, against torch's layers and the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from transduce.models.decoders.recurrent import RecurrentDecoder, RecurrentDecoderBlueprint
from transduce.models.interface import Bank
from transduce.nn.attend import (
    ConnectionBlueprint,
    CoverageAttentionBlueprint,
    FixedContextBlueprint,
    GeneralAttentionBlueprint,
    LocationAwareAttentionBlueprint,
)
from transduce.nn.gate import ContextGate, Gated
from transduce.nn.recurrent import Stack, Style, layer
from transduce.nn.steps import Cell, LayerState, NormedLayer, Steps

CELLS: tuple[Cell, ...] = get_args(Cell)
ROWS, TOKENS, INPUTS, WIDTH, MEMORY, POSITIONS = 3, 4, 5, 6, 7, 5
LENGTHS = torch.tensor([5, 2, 3])


@pytest.fixture(autouse=True)
def _the_same_numbers() -> None:
    torch.manual_seed(1)


def randomised(part: nn.Module) -> nn.Module:
    for parameter in part.parameters():
        nn.init.normal_(parameter, std=0.5)
    return part.double()


@pytest.mark.parametrize("known", [0, 2, INPUTS])
@pytest.mark.parametrize("cell", CELLS)
def test_steps_equal_the_fused_layer_and_so_do_their_gradients(cell: Cell, known: int) -> None:
    part = layer(cell, INPUTS, WIDTH)
    assert isinstance(part, nn.RNNBase)
    randomised(part)
    x = torch.randn(ROWS, TOKENS, INPUTS, dtype=torch.float64)
    first = torch.randn(2, ROWS, WIDTH, dtype=torch.float64)
    state = LayerState(first[0], first[1] if cell == "lstm" else first[1, :, :0])
    steps, found = Steps(cell, part, x[:, :, :known] if known else None), []
    for step in range(TOKENS):
        state = steps(step, x[:, step, known:] if known < INPUTS else None, state)
        found.append(state.output)
    wanted, _ = part(x, (first[:1], first[1:]) if cell == "lstm" else first[:1])
    torch.testing.assert_close(torch.stack(found, 1), wanted)
    leaves = list(part.parameters())
    ours = torch.autograd.grad(torch.stack(found, 1).square().sum(), leaves)
    theirs = torch.autograd.grad(wanted.square().sum(), leaves)
    for mine, torchs in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torchs)


def test_plain_layers_equal_the_formula() -> None:
    """s = f(W x + U s + b) (Elman 1990)."""
    plain: list[tuple[Cell, Callable[[Tensor], Tensor]]] = [
        ("tanh", torch.tanh),
        ("relu", torch.relu),
    ]
    for cell, shape in plain:
        stack = Stack(cell, INPUTS, WIDTH, 1, 0.0)
        randomised(stack)
        w, u, b, c = (parameter.detach() for parameter in stack.parameters())
        x = torch.randn(ROWS, TOKENS, INPUTS, dtype=torch.float64)
        found, _ = stack(x)
        state = torch.zeros(ROWS, WIDTH, dtype=torch.float64)
        for step in range(TOKENS):
            state = shape(x[:, step] @ w.T + b + state @ u.T + c)
            torch.testing.assert_close(found[:, step], state)


def normal(x: Tensor, part: nn.Module) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * part.get_parameter("weight") + part.get_parameter("bias")


def test_a_normed_lstm_equals_the_formula() -> None:
    """Gates LN(W x) + LN(U s), output o * tanh(LN(c)) (Ba 2016, supplement, eq. 20 to 22)."""
    stack = Stack("lstm", INPUTS, WIDTH, 1, 0.0, Style(norm=True))
    randomised(stack)
    part = stack.layers[0]
    assert isinstance(part, NormedLayer)
    x = torch.randn(ROWS, TOKENS, INPUTS, dtype=torch.float64)
    found, _ = stack(x)
    state = cell = torch.zeros(ROWS, WIDTH, dtype=torch.float64)
    for step in range(TOKENS):
        entering = normal(x[:, step] @ part.weight_ih_l0.T, part.input_norm)
        gates = entering + normal(state @ part.weight_hh_l0.T, part.hidden_norm)
        i, f, g, o = gates.chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * normal(cell, part.cell_norm).tanh()
        torch.testing.assert_close(found[:, step], state)


def test_a_normed_gru_equals_the_formula() -> None:
    stack = Stack("gru", INPUTS, WIDTH, 1, 0.0, Style(norm=True))
    randomised(stack)
    part = stack.layers[0]
    assert isinstance(part, NormedLayer)
    x = torch.randn(ROWS, TOKENS, INPUTS, dtype=torch.float64)
    found, _ = stack(x)
    state = torch.zeros(ROWS, WIDTH, dtype=torch.float64)
    for step in range(TOKENS):
        wr, wz, wn = normal(x[:, step] @ part.weight_ih_l0.T, part.input_norm).chunk(3, 1)
        ur, uz, un = normal(state @ part.weight_hh_l0.T, part.hidden_norm).chunk(3, 1)
        update = (wz + uz).sigmoid()
        state = (1 - update) * (wn + (wr + ur).sigmoid() * un).tanh() + update * state
        torch.testing.assert_close(found[:, step], state)


def test_residual_layers_add_what_they_read() -> None:
    """x + f(x) for every layer but the first (Wu 2016, 3.1)."""
    plain, residual = (Stack("lstm", INPUTS, WIDTH, 3, 0.0, Style(r)) for r in (False, True))
    residual.load_state_dict(plain.state_dict())
    x = torch.randn(ROWS, TOKENS, INPUTS)
    first, _ = plain.layers[0](x)
    second = first + plain.layers[1](first)[0]
    wanted = second + plain.layers[2](second)[0]
    torch.testing.assert_close(residual(x)[0], wanted)


def decoder(
    connection: ConnectionBlueprint, order: str, feeds: bool, gate: Gated | None = None
) -> RecurrentDecoder:
    facts = {"connection": connection, "order": order, "input_feeding": feeds, "layers": 1}
    sizes = {"embedding": INPUTS, "width": WIDTH, "context_gate": gate or "none"}
    blueprint = RecurrentDecoderBlueprint.model_validate(facts | sizes)
    made = blueprint.build(9, MEMORY)
    randomised(made)
    return made.eval()


def bank() -> Bank:
    states = torch.randn(ROWS, POSITIONS, MEMORY, dtype=torch.float64)
    mask = torch.arange(POSITIONS) < LENGTHS[:, None]
    return Bank(states, mask, torch.randn(ROWS, MEMORY, dtype=torch.float64))


Ask = Callable[[Tensor], Tensor]


def general(made: RecurrentDecoder, source: Bank) -> Ask:
    """Return Luong's general attention with its context."""
    weight = made.connection.get_parameter("key.weight")

    def ask(state: Tensor) -> Tensor:
        scores = torch.einsum("bd,de,bse->bs", state, weight, source.states)
        weights = scores.masked_fill(~source.mask, -torch.inf).softmax(-1)
        return torch.einsum("bs,bsd->bd", weights, source.states)

    return ask


def fixed(made: RecurrentDecoder, source: Bank) -> Ask:
    return lambda state: source.summary


@pytest.mark.parametrize("feeds", [False, True])
@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize(
    ("connection", "asker"),
    [(GeneralAttentionBlueprint(), general), (FixedContextBlueprint(), fixed)],
    ids=["general", "fixed"],
)
def test_orders_and_input_feeding_equal_the_formulas(
    connection: ConnectionBlueprint,
    asker: Callable[[RecurrentDecoder, Bank], Ask],
    order: str,
    feeds: bool,
) -> None:
    """s = f([y; c; h~], s) (Bahdanau 2015, A.2.2; Cho 2014, eq. 2; Luong 2015, 3.3)."""
    made, source = decoder(connection, order, feeds), bank()
    tokens = torch.randint(0, 9, (ROWS, TOKENS))
    with torch.no_grad():
        found = made(tokens, {"source": source}).features
        ask, cell = asker(made, source), made.stack.layers[0]
        assert isinstance(made.combine, nn.Linear)
        state = torch.tanh(made.bridge(source.summary))
        memory, feed = torch.zeros_like(state), torch.zeros_like(state)
        for step in range(TOKENS):
            entering = [made.embedding(tokens[:, step])]
            context = ask(state)
            entering += [context] if order == "before" else []
            entering += [feed] if feeds else []
            x = torch.cat(entering, -1)[:, None]
            _, (last, after) = cell(x, (state[None], memory[None]))
            state, memory = last[0], after[0]
            context = context if order == "before" else ask(state)
            feed = torch.tanh(made.combine(torch.cat([state, context], -1)))
            torch.testing.assert_close(found[:, step], feed)


def remembered(kind: str, made: RecurrentDecoder, past: Tensor) -> Tensor:
    """Return what the attention adds to W h for what it did before, by position."""
    if kind == "coverage":  # w_c c (See 2017, eq. 11)
        total = past.sum(1)
        return total[..., None] * made.connection.get_parameter("coverage.weight")[:, 0]
    filters = made.connection.get_parameter("filters")[:, 0]  # f = F * a, U f (Chorowski 2015, 8)
    reach, last = filters.shape[1] // 2, past[:, -1]
    features = torch.zeros(ROWS, POSITIONS, len(filters), dtype=torch.float64)
    for place in range(POSITIONS):
        for offset in range(-reach, reach + 1):
            if 0 <= place + offset < POSITIONS:
                features[:, place] += last[:, [place + offset]] * filters[:, offset + reach]
    return features @ made.connection.get_parameter("feature.weight").T


@pytest.mark.parametrize(
    "connection",
    [CoverageAttentionBlueprint(width=4), LocationAwareAttentionBlueprint(width=4, reach=1)],
    ids=lambda connection: connection.kind,
)
def test_attention_that_remembers_equals_the_formula(connection: ConnectionBlueprint) -> None:
    made, source = decoder(connection, "after", False), bank()
    part = made.connection
    tokens = torch.randint(0, 9, (ROWS, TOKENS))
    with torch.no_grad():
        found = made(tokens, {"source": source}).attention
        assert found is not None
        first = torch.tanh(made.bridge(source.summary))[None]
        states, _ = made.stack.layers[0](made.embedding(tokens), (first, torch.zeros_like(first)))
        past = torch.zeros(ROWS, 1, POSITIONS, dtype=torch.float64)
        u, b = part.get_parameter("query.weight"), part.get_parameter("query.bias")
        w, v = part.get_parameter("key.weight"), part.get_parameter("energy.weight")[0]
        for step in range(TOKENS):
            inner = source.states @ w.T + remembered(connection.kind, made, past)
            inner = inner + (states[:, step] @ u.T + b)[:, None]
            scores = (torch.tanh(inner) @ v).masked_fill(~source.mask, -torch.inf)
            torch.testing.assert_close(found[:, step], scores.softmax(-1), atol=1e-6, rtol=1e-6)
            past = torch.cat([past, scores.softmax(-1)[:, None]], 1)


@pytest.mark.parametrize("gated", get_args(Gated))
def test_the_context_gate_equals_the_formula(gated: Gated) -> None:
    """z = sigmoid(W e + U s + C c); source, target or both weighed by it (Tu 2017, 3.1 to 3.3)."""
    part = ContextGate(INPUTS, WIDTH, MEMORY, gated)
    randomised(part)
    s, c, e = (torch.randn(ROWS, n, dtype=torch.float64) for n in (WIDTH, MEMORY, INPUTS))
    with torch.no_grad():
        z = (torch.cat([e, s, c], -1) @ part.gate.weight.T + part.gate.bias).sigmoid()
        source, target = c @ part.source.weight.T + part.source.bias, s @ part.target.weight.T
        wanted = {
            "source": z * source + target,
            "target": source + z * target,
            "both": z * source + (1 - z) * target,
        }
        torch.testing.assert_close(part(s, c, e), wanted[gated].tanh())
