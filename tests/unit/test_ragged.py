"""All around the kernel for rows of unequal length, with a plain function in its place."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import varlen

from transduce.data.batch import Batch
from transduce.models.build import ModelBlueprint, build
from transduce.models.decoders.transformer import TransformerDecoder
from transduce.nn import multihead, ragged, span
from transduce.nn.tap import watch
from transduce.sequences import Sequences
from transduce.train.objective import CrossEntropyBlueprint, Learner

SYMBOLS, LAYERS = 20, 2


class Kernel:
    """What torch's kernel computes, row by row; it counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        enable_gqa: bool = False,
    ) -> Tensor:
        self.calls += 1
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert int(cu_seq_q[-1]) == len(query)
        assert int(cu_seq_k[-1]) == len(key) == len(value)
        sizes = cu_seq_q.diff().tolist(), cu_seq_k.diff().tolist()
        assert max(sizes[0]) <= max_q
        assert max(sizes[1]) <= max_k
        found = []
        parts = [
            torch.split(x, size)
            for x, size in ((query, sizes[0]), (key, sizes[1]), (value, sizes[1]))
        ]
        for rows in zip(*parts, strict=True):
            one, other, third = (row.transpose(0, 1) for row in rows)
            mixed = F.scaled_dot_product_attention(one, other, third, enable_gqa=enable_gqa)
            found.append(mixed.transpose(0, 1))
        return torch.cat(found)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Let a CPU take the way of a GPU."""
    made = Kernel()
    monkeypatch.setattr(varlen, "varlen_attn", made)
    monkeypatch.setattr(ragged, "serves", lambda _: torch.is_grad_enabled())
    monkeypatch.setattr(ragged, "HALVES", (torch.float32,))
    monkeypatch.setattr(multihead, "fuses", lambda _: True)
    return made


def learner(**settings: Any) -> Learner:
    torch.manual_seed(1)
    part = {"kind": "transformer", "width": 16, "heads": 2, "inner": 16, "layers": LAYERS}
    part |= {"dropout": 0.0, **settings}
    blueprint = ModelBlueprint.model_validate({"encoder": part, "decoder": part, "tie": "all"})
    model = build(blueprint, {"source": SYMBOLS, "target": SYMBOLS})
    return Learner(model, CrossEntropyBlueprint().build())


def batch() -> Batch:
    torch.manual_seed(2)
    source, target = (
        Sequences.stack([torch.randint(3, SYMBOLS, (size,)) for size in sizes])
        for sizes in ((7, 1, 4), (3, 6, 2))
    )
    return Batch({"source": source}, target, torch.arange(3))


def gradients(given: Learner) -> list[Tensor]:
    given.zero_grad()
    loss = given(batch())
    loss.total.backward()
    return [loss.total.detach(), *(p.grad for p in given.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("settings", "of_encoder"),
    [
        ({}, 1),
        ({"key_value_heads": 1, "positions": {"kind": "rotary"}}, 1),
        # Scores of distances, and vectors of them, are more than what hides padding.
        ({"positions": {"kind": "t5"}}, 0),
        ({"positions": {"kind": "shaw"}}, 0),
        # Heads that the kernel does not know.
        ({"heads": 4}, None),
    ],
    ids=str,
)
def test_training_without_padding_is_training(
    settings: dict[str, Any], of_encoder: int | None, request: pytest.FixtureRequest
) -> None:
    given = learner(**settings)
    wanted = gradients(given)
    kernel = request.getfixturevalue("kernel")
    found = gradients(given)
    assert kernel.calls == (0 if of_encoder is None else LAYERS * (of_encoder + 1))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_who_watches_the_weights_sees_them(kernel: Kernel) -> None:
    given = learner()
    with watch(given, "self-attention") as seen:
        gradients(given)
    assert all(seen.values())
    assert kernel.calls == LAYERS, "the attention to the source is watched by nobody"


def test_predicting_asks_for_no_lengths(kernel: Kernel) -> None:
    given = learner()
    with torch.no_grad():
        given(batch())
    assert kernel.calls == 0


def test_a_cpu_has_no_such_kernel() -> None:
    assert ragged.ragged(torch.ones(2, 3, dtype=torch.bool), of_queries=True) is None
    assert not multihead.fuses(torch.ones(1))


def test_the_plain_function_is_called_as_the_kernel_is() -> None:
    theirs = inspect.signature(varlen.varlen_attn).parameters
    ours = list(inspect.signature(Kernel.__call__).parameters.values())[1:]
    assert [(x.name, x.kind) for x in ours] == [
        (name, theirs[name].kind) for name in theirs if name in {x.name for x in ours}
    ]


def test_blocks_say_what_they_hide() -> None:
    """A bias that is causal and nothing more is one that a kernel can make itself."""
    given = learner().model
    whole = span.FullSpan()
    memory = given.encode(batch().sources)
    state = given.decoder.start(memory)
    first = state.past[0]
    assert isinstance(given.decoder, TransformerDecoder)
    places = given.decoder.positions
    (block,) = whole.onwards(first, state.length, 4, places, torch.float32)
    assert block.causal
    _, later = given.decoder.extend(torch.ones(3, 2, dtype=torch.long), state)
    for cache, tokens in ((later.past[0], 4), (first, 1)):
        (block,) = whole.onwards(cache, later.length, tokens, places, torch.float32)
        assert not block.causal
