"""The laws over models to which something was added, wherever there is a place for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

import pytest
import torch
from test_models import DECODERS, ENCODERS, FURTHER, Case, case, label
from torch import Tensor

from transduce import testing
from transduce.adapt import AdaptBlueprint, BottleneckBlueprint, LoraBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.addition import learned, settle
from transduce.nn.packed import pack
from transduce.nn.recompute import recomputing
from transduce.search import Beam, Greedy
from transduce.sequences import Sequences

KINDS: Final[dict[str, AdaptBlueprint]] = {
    "lora": LoraBlueprint(rank=1),
    "bottleneck": BottleneckBlueprint(width=3),
}
PLAIN: Final = [(name, "transformer") for name in ENCODERS if "-" not in name]
PAIRS: Final = [
    *PLAIN,
    *(("recurrent", name) for name in DECODERS if "-" not in name and name != "transformer"),
    *(("transformer", label(part)) for part in FURTHER if label(part) in DECODERS),
    ("recurrent-normalised", "recurrent-residual"),
    ("recurrent-not bidirectional", "recurrent-variational"),
]


def adapted(model: Seq2Seq, kind: str) -> Seq2Seq:
    """Add something, as it is when it has learned."""
    KINDS[kind].adapt(model)
    torch.manual_seed(1)
    for parameter in learned(model).values():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def loss(given: Case, recompute: bool = False) -> Tensor:
    rows = Sequences.stack([torch.tensor([1, 4, 5, 3, 6, 2])] * len(given.prompt))
    inputs = Sequences(rows.data[:, :-1], rows.lengths - 1)
    labels = Sequences(rows.data[:, 1:], rows.lengths - 1)
    context: AbstractContextManager[None] = recomputing(recompute)
    with context:
        total: Tensor = given.model(given.sources, inputs, labels)[0]
    return total


@torch.no_grad()
def scores(given: Case) -> Tensor:
    model = given.model
    memory = model.encode(given.sources)
    tokens = torch.cat([given.prompt, torch.full_like(given.prompt, 4)], 1)
    return model.extend(tokens, model.start(memory))[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_adapted_models_are_scorers(encoder: str, decoder: str, kind: str) -> None:
    given = case(encoder, decoder, 5, 9, 4)
    before = scores(given)
    KINDS[kind].adapt(given.model)
    torch.testing.assert_close(scores(given), before, msg="what is added begins with no change")
    model = adapted(case(encoder, decoder, 5, 9, 4).model, kind)
    given = given._replace(model=model)
    assert not torch.allclose(scores(given), before, atol=1e-3)
    tokens = torch.cat([given.prompt, torch.randint(0, 9, (5, 4))], 1)
    testing.check_scorer(model, given.sources, tokens)
    testing.check_normalised(model, given.sources, tokens)
    for search in (Greedy(), Beam(width=3)):
        testing.check_search_batch_mates(search, *given, sizes=(1, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_only_what_was_added_learns(encoder: str, decoder: str, kind: str) -> None:
    given = case(encoder, decoder, 3, 9, 4)
    named = dict(adapted(given.model, kind).named_parameters())
    gradients = []
    for recompute in (False, True):
        loss(given, recompute).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in named.items() if p.grad is not None})
        given.model.zero_grad()
    assert gradients[0].keys() == learned(given.model).keys()
    for name, gradient in gradients[0].items():
        assert gradient.any(), name
        assert torch.equal(gradient, gradients[1][name]), "recomputed: the same bits"


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_low_rank_changes_become_weights(encoder: str, decoder: str) -> None:
    given = case(encoder, decoder, 5, 9, 4)
    names = dict(given.model.named_parameters()).keys()
    adapted(given.model, "lora")
    wanted = scores(given)
    settle(given.model)
    assert dict(given.model.named_parameters()).keys() == names
    torch.testing.assert_close(scores(given), wanted, atol=1e-5, rtol=1e-5)
    pack(given.model)
    torch.testing.assert_close(scores(given), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("encoder", "decoder"), PLAIN)
def test_bottlenecks_answer_alike_when_packed(encoder: str, decoder: str) -> None:
    given = case(encoder, decoder, 5, 9, 4)
    adapted(given.model, "bottleneck")
    wanted = scores(given)
    pack(given.model)
    torch.testing.assert_close(scores(given), wanted, atol=1e-4, rtol=1e-4)
