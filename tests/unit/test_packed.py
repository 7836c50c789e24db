"""Packed weights answer as plain ones do, and only where nothing but an answer is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn

import transduce.nn.packed
from transduce.models.heads import LinearHead
from transduce.models.interface import Readout
from transduce.nn.packed import FEW, Exactly, InBytes, Linear, NumberType, Packed, pack
from transduce.problem import Problem
from transduce.recipe.use import predict
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show
from transduce.transducer import Transducer

pytestmark = pytest.mark.skipif(
    not Packed.serves(torch.zeros(1)), reason="oneDNN's packed products are not here"
)


def packed(
    inputs: int = 24, outputs: int = 40, bias: bool = True, precision: NumberType = "fp32"
) -> Linear:
    torch.manual_seed(1)
    layer = Linear(inputs, outputs, bias)
    pack(layer, precision)
    return layer


@pytest.fixture
def tiny_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let int8 serve weights of any size."""
    monkeypatch.setattr(transduce.nn.packed, "LARGE", 0)


@pytest.mark.parametrize("shape", [(1,), (FEW - 1,), (FEW,), (64,), (3, 5), (2, 130)])
@pytest.mark.parametrize("bias", [True, False])
def test_answers_are_those_of_the_plain_map(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = packed(bias=bias), torch.randn(*shape, 24)
    with torch.no_grad():
        found = layer(x)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_the_packed_weight_is_what_is_read() -> None:
    layer, x = packed(), torch.randn(64, 24)
    with torch.no_grad():
        before = layer(x)
        layer.weight.zero_()
        assert torch.equal(layer(x), before)
        few = layer(x[: FEW - 1])
    assert torch.equal(few, layer.bias.expand_as(few)), "few rows take the ordinary way"


def test_gradients_and_other_types_take_the_ordinary_way() -> None:
    layer, x = packed(), torch.randn(64, 24, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert x.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_head_tied_to_the_embeddings_is_packed_too() -> None:
    embedding = nn.Embedding(40, 24)
    head = LinearHead(24, embedding, tied=True)
    features = torch.randn(8, 1, 24)
    with torch.no_grad():
        plain = head(Readout(features), None)
        pack(head)
        assert head.packed is not None
        torch.testing.assert_close(head(Readout(features), None), plain, atol=1e-6, rtol=1e-5)
    assert set(head.state_dict()) == {"bias", "weight"}, "what is packed is not saved"
    torch.testing.assert_close(plain.exp().sum(2), torch.ones(8, 1))


ROUNDED: dict[NumberType, float] = {"bf16": 0.005, "int8": 0.02}


@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("shape", [(0,), (1,), (64,), (3, 5)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("tiny_is_large")
def test_rounded_answers_are_near(
    precision: NumberType, shape: tuple[int, ...], bias: bool
) -> None:
    layer, x = packed(bias=bias, precision=precision), torch.randn(*shape, 24)
    x *= torch.logspace(-3, 3, shape[-1])[:, None]  # rows of all sizes
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        found = layer(x)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert (error < ROUNDED[precision]).all()
    if len(x):
        assert error.max() > 1e-6, "it has rounded"


@pytest.mark.usefixtures("tiny_is_large")
def test_in_bytes_a_row_is_the_same_in_any_batch() -> None:
    layer, x = packed(precision="int8"), torch.randn(64, 24)
    with torch.no_grad():
        whole = layer(x)
        for rows in (slice(0, 1), slice(3, 20), slice(63, 64)):
            assert torch.equal(layer(x[rows]), whole[rows])


@pytest.mark.usefixtures("tiny_is_large")
def test_in_bytes_nothing_is_0_and_what_is_no_number_stays_none() -> None:
    layer, x = packed(precision="int8"), torch.zeros(3, 24)
    x[1, 5], x[2, 0] = torch.nan, torch.inf
    with torch.no_grad():
        found = layer(x)
    assert torch.equal(found[0], layer.bias)
    assert found[1].isnan().all()
    assert not found[2].isfinite().any()


def test_small_weights_are_not_rounded_to_bytes() -> None:
    with pytest.warns(UserWarning, match="int8 changes nothing: .* no map of 131,072 weights"):
        assert isinstance(packed(precision="int8").packed, Exactly)
    assert isinstance(packed(512, 256, precision="int8").packed, InBytes)


@pytest.mark.parametrize(
    ("needed", "chosen"),
    [
        ({"fp32": 3.0, "bf16": 2.0, "int8": 1.0}, "int8"),
        ({"fp32": 3.0, "bf16": 1.0, "int8": 0.9}, "bf16"),
        ({"fp32": 1.0, "bf16": 0.9, "int8": 3.0}, "fp32"),
    ],
)
@pytest.mark.usefixtures("tiny_is_large")
def test_auto_takes_what_gains_and_says_so(
    needed: dict[NumberType, float], chosen: NumberType, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = transduce.nn.packed.TYPES

    def pretended(kind: type[Packed], weight: Tensor) -> float:
        return next(needed[name] for name in types if types[name] is kind)

    monkeypatch.setattr(transduce.nn.packed, "seconds", pretended)
    layer = Linear(24, 40)
    with pytest.warns(
        UserWarning,
        match=f"auto takes {chosen}; .* int8 {3 / needed['int8']:.1f}"
        if chosen != "fp32"
        else "auto takes fp32; .* int8 0.3",
    ):
        pack(layer, "auto")
    assert type(layer.packed) is types[chosen]


def test_the_real_race_is_run() -> None:
    with pytest.warns(UserWarning, match=r"fp32 1\.0, .*int8 \d"):
        pack(Linear(512, 256), "auto")
    with pytest.warns(UserWarning, match=r"auto takes (?!int8).*fp32 1\.0(?!.*int8)"):
        pack(Linear(24, 40), "auto")


def test_what_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(24, 40)
    monkeypatch.setattr(Packed, "serves", staticmethod(lambda weight: False))
    pack(layer)
    assert layer.packed is None
    with pytest.raises(Problem, match="int8 needs a CPU"):
        pack(layer, "int8")


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.usefixtures("tiny_is_large")
def test_a_model_that_rounds_answers_nearly_the_same(precision: NumberType, tmp_path: Path) -> None:
    made = tiny.bundle(tiny.MODELS["transformer"])
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.div_(4 if weight.dim() > 1 else 1)  # as models begin, not as sure of themselves
    made.save(tmp_path / "model", tensors(made.model), "a card")
    exact, rounded = Transducer.load(tmp_path), Transducer.load(tmp_path, precision=precision)
    pairs = tiny.SOURCES, tiny.TARGETS
    for plain, near in zip(exact.force(*pairs), rounded.force(*pairs), strict=True):
        assert plain != near
        for ours, theirs in zip(plain, near, strict=True):
            assert ours.log_prob == pytest.approx(theirs.log_prob, abs=0.1)
    model = tmp_path / "model"
    assert list(predict(model, tiny.SOURCES, [f"precision={precision}"], show=Show())) == [
        answer.text for answer in rounded(tiny.SOURCES)
    ]
