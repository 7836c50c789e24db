"""Watching a model from outside: what is seen is real, and the model does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from transduce.explain.reading import source_attention
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.tap import Tap, watch
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS
from transduce.tree import leaves

SOURCES = {
    "source": Sequences(torch.tensor([[3, 5, EOS, 0], [4, 3, 6, EOS]]), torch.tensor([3, 4]))
}
READ = Sequences(torch.tensor([[BOS, 3, 4, 5, 6], [BOS, 4, 4, 3, 3]]), torch.tensor([3, 5]))
SHOWN = {
    "recurrent": {"source attention": ["decoder.attention"]},
    "transformer": {
        "source attention": [f"decoder.layers.{n}.cross_attention.weights" for n in (0, 1)],
        "self-attention": [f"{side}.layers.{n}.self_attention.weights" for side in
                           ("encoders.source", "decoder") for n in (0, 1)],
    },
}  # fmt: skip


def make(facts: dict[str, Any]) -> Seq2Seq:
    return tiny.bundle(facts).model.eval()


@torch.no_grad()
def parallel(model: Seq2Seq) -> list[Tensor]:
    """Read everything at once."""
    out = model.decoder(READ.data, model.encode(SOURCES))
    return [part for part in out if part is not None]


@torch.no_grad()
def stepwise(model: Seq2Seq) -> list[Tensor]:
    """Read a token at a time, two hypotheses for each source; return scores and the last state."""
    state = model.start(model.encode(SOURCES), 2)
    tokens, found = READ.data.repeat_interleave(2, 0), []
    for token in torch.split(tokens, 1, 1):
        log_probs, state = model.extend(token, state)
        found.append(log_probs)
    return [*found, *(leaf for leaf, _ in leaves(state))]


def learning(model: Seq2Seq) -> list[Tensor]:
    """Take the gradient of a loss, with dropout."""
    torch.manual_seed(0)
    model.train().zero_grad()
    loss, _ = model(SOURCES, READ, READ)
    loss.backward()
    model.eval()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("work", [parallel, stepwise, learning])
@pytest.mark.parametrize(
    "facts", [*tiny.MODELS.values(), tiny.STEPWISE], ids=[*tiny.MODELS, "steps"]
)
def test_watching_changes_nothing(
    facts: dict[str, Any], work: Callable[[Seq2Seq], list[Tensor]]
) -> None:
    model = make(facts)
    unwatched = work(model)
    with watch(model, "source attention") as first, watch(model, "self-attention") as second:
        watched = work(model)
    assert any(first.values())
    assert all([*first.values(), *second.values()])
    for found, wanted in zip(watched, unwatched, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", SHOWN)
def test_every_attention_has_its_name(name: str) -> None:
    model = make(tiny.MODELS[name])
    for shows, places in SHOWN[name].items():
        with watch(model, shows) as seen:
            parallel(model)
        assert list(seen) == places
        assert all(len(weights) == 1 for weights in seen.values())
    with watch(model, "no such thing") as nothing:
        parallel(model)
    assert nothing == {}


def test_passes_are_noted_in_their_order_and_do_not_hold_the_graph() -> None:
    model = make(tiny.MODELS["recurrent"])
    with watch(model, "source attention") as seen:
        learning(model)
        parallel(model)
    first, second = seen["decoder.attention"]
    assert not first.requires_grad
    with watch(model, "source attention") as again:
        parallel(model)
    assert torch.equal(second, again["decoder.attention"][0])


def test_nobody_watches_when_watching_is_over() -> None:
    model = make(tiny.MODELS["transformer"])
    taps = [part for part in model.modules() if isinstance(part, Tap)]
    with watch(model, "source attention"), watch(model, "self-attention"):
        assert all(tap.watched for tap in taps)
    assert not any(tap.watched for tap in taps)
    with pytest.raises(ZeroDivisionError), watch(model, "source attention"):
        raise ZeroDivisionError
    assert not any(tap.watched for tap in taps)


def test_two_may_watch_at_once() -> None:
    model = make(tiny.MODELS["recurrent"])
    with watch(model, "source attention") as first:
        with watch(model, "source attention") as second:
            parallel(model)
        parallel(model)
    ours, theirs = first["decoder.attention"], second["decoder.attention"]
    assert (len(ours), len(theirs)) == (2, 1)
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize("name", tiny.MODELS)
def test_attention_is_the_mean_over_layers_and_heads_and_skips_padding(name: str) -> None:
    model = make(tiny.MODELS[name])
    with watch(model, "source attention") as seen:
        found = source_attention(model, SOURCES, READ)
    assert found is not None
    assert found.shape == (2, 5, 4)
    assert torch.allclose(found.sum(2), torch.ones(2, 5))
    assert (found[0, :, 3] == 0).all(), "nobody looks at padding"
    maps = [weights for passes in seen.values() for weights in passes]
    mean = torch.stack([w if w.dim() == 3 else w.mean(1) for w in maps]).mean(0)
    assert torch.equal(found, mean)


def test_a_model_without_attention_shows_none() -> None:
    assert source_attention(make(tiny.FIXED), SOURCES, READ) is None


def test_reading_together_is_reading_alone() -> None:
    model = make(tiny.MODELS["transformer"])
    whole = source_attention(model, SOURCES, READ)
    first = {"source": Sequences(SOURCES["source"].data[:1, :3], torch.tensor([3]))}
    alone = source_attention(model, first, Sequences(READ.data[:1, :3], READ.lengths[:1]))
    assert whole is not None
    assert alone is not None
    assert torch.allclose(alone[0], whole[0, :3, :3], atol=1e-5)


def test_a_tap_says_what_passes() -> None:
    tap = Tap("thoughts")
    assert "thoughts" in repr(nn.Sequential(tap))
    value = torch.ones(2)
    assert tap(value) is value
