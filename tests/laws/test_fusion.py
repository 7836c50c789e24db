"""Decoders without an encoder are models, and a language model beside a model is a scorer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import Int
from test_models import CHOICES, DECODERS
from torch import Tensor, nn
from toys import EOS, MAKERS, Recurrent, Table, task, with_holes

from transduce import testing
from transduce.models.build import ModelBlueprint, build
from transduce.models.decoders.recurrent import RecurrentDecoderBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.attend import ConnectionBlueprint, InitialStateBlueprint
from transduce.nn.span import SegmentSpanBlueprint
from transduce.problem import Problem
from transduce.search import Beam, Ensemble, Exact, Fusion, Greedy, Sample, Scorer, fused
from transduce.sequences import Sequences

TOKENS = torch.tensor([[1, 4, 5, 3], [1, 3, 3, 4], [1, 5, 4, 3]])
SOURCES = {"source": Sequences.stack([torch.tensor(row) for row in ([4, 5, 2], [2], [3, 2])])}
PROMPT, LIMIT = torch.ones(3, 1, dtype=torch.long), torch.tensor([5, 6, 4])


def alone(part: Any) -> Any:
    """Return a decoder as it is without a source, or None if it has nothing to do then."""
    if not isinstance(part, RecurrentDecoderBlueprint):
        return part
    nothing = {"connection": InitialStateBlueprint(), "bottleneck": None, "first_cell": "zero"}
    initial = part.model_copy(update=nothing)
    source = initial.order != "after" or initial.input_feeding or initial.context_gate != "none"
    return None if source else initial


SPEAKERS = {name: alone(part) for name, part in DECODERS.items() if alone(part)}


def speaker(name: str, symbols: int = 6, seed: int = 0) -> Seq2Seq:
    """Return a language model that is sure of itself."""
    torch.manual_seed(seed)
    parts = {"encoder": "none", "decoder": SPEAKERS[name], "tie": "none"}
    model = build(ModelBlueprint.model_validate(parts), {"source": symbols, "target": symbols})
    with torch.no_grad():
        for key, weight in model.named_parameters():
            explodes = "Convolutional" in type(model.decoder).__name__ or "weight_" in key
            weight.mul_(3 if weight.dim() > 1 and not explodes else 1)
    return model.eval()


@pytest.mark.parametrize("name", SPEAKERS)
def test_language_models_are_scorers(name: str) -> None:
    model = speaker(name)
    testing.check_scorer(model, SOURCES, TOKENS)
    testing.check_normalised(model, SOURCES, TOKENS)
    for search in (Greedy(), Beam(width=3), Sample(samples=2)):
        testing.check_search(search, model, SOURCES, PROMPT, LIMIT)


@pytest.mark.parametrize("name", SPEAKERS)
def test_every_weight_of_a_language_model_learns(name: str) -> None:
    model = speaker(name).train()
    inputs = Sequences(TOKENS[:, :3], torch.tensor([3, 3, 3]))
    loss, _ = model(SOURCES, inputs, Sequences(TOKENS[:, 1:], inputs.lengths))
    loss.backward()
    idle = [key for key, weight in model.named_parameters() if weight.grad is None]
    assert not idle
    assert all(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_language_model_does_not_look_ahead(name: str) -> None:
    model, embedded = speaker(name), list[Tensor]()

    def note(_: nn.Module, __: Any, out: Tensor) -> None:
        embedded.append(out)

    model.decoder.embedding.register_forward_hook(note)
    part = SPEAKERS[name]
    span, truncate = (getattr(part, setting, None) for setting in ("span", "truncate"))
    cut = span.length if isinstance(span, SegmentSpanBlueprint) else truncate or 4
    log_probs, _ = model.extend(TOKENS, model.start(model.encode(SOURCES)))
    for place in range(4):
        said = log_probs[:, place, 3].sum()
        (gradient,) = torch.autograd.grad(said, embedded, retain_graph=True)
        reached = gradient.abs().sum((0, 2)) > 0
        assert reached.tolist() == [place // cut * cut <= before <= place for before in range(4)]


def test_what_needs_a_source_is_refused() -> None:
    def make(**facts: Any) -> Seq2Seq:
        parts = {"encoder": "none", "decoder": "transformer", **facts}
        return build(ModelBlueprint.model_validate(parts), {"source": 6, "target": 6})

    make()
    with pytest.raises(Problem, match=r"^model\.tie: there is no source"):
        make(tie="all")
    with pytest.raises(Problem, match=r"^model\.head: there is no source to copy from"):
        make(head="pointer_generator")
    with pytest.raises(Problem, match=r"^model\.decoder\.bottleneck: there is no source"):
        make(decoder={"kind": "recurrent", "connection": "initial", "bottleneck": 4})
    refused = [part for part in CHOICES["connection"] if part != InitialStateBlueprint()]
    assert len(refused) >= len(ConnectionBlueprint.choices()) - 1
    for connection in refused:
        with pytest.raises(Problem, match=r"^model\.decoder\.connection: there is no source"):
            make(decoder=RecurrentDecoderBlueprint(connection=connection))


class Speaker(Table):
    """A table that has no source."""

    def encode(self, sources: Any) -> Any:
        nothing = torch.zeros_like(sources["source"].data)
        return super().encode({"source": Sequences(nothing, torch.ones(len(nothing)).long())})


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_fusion_is_a_scorer(make: Callable[[int], Any]) -> None:
    for language in (Speaker(6, seed=3), speaker("transformer")):
        fusion = Fusion(make(6), language, 0.3)
        assert isinstance(fusion, Scorer)
        testing.check_scorer(fusion, SOURCES, TOKENS)
        for search in (Greedy(), Beam(width=3, n_best=2), Exact(nodes=50), Sample(samples=2)):
            testing.check_search(search, fusion, SOURCES, PROMPT, LIMIT)


def test_what_it_says_is_the_weighted_sum() -> None:
    model, language = Recurrent(6), Speaker(6, seed=3)
    found, _ = read(Fusion(model, language, 0.4))
    wanted = read(model)[0] + 0.4 * read(language)[0]
    torch.testing.assert_close(found, wanted)


def read(scorer: Scorer) -> tuple[Tensor, Any]:
    return scorer.extend(TOKENS, scorer.start(scorer.encode(SOURCES)))


def test_a_language_model_without_weight_is_not_asked() -> None:
    model = with_holes(6)
    assert fused(model, Speaker(6), 0.0) is model
    light = Fusion(model, Speaker(6), 1e-9)
    torch.testing.assert_close(read(light)[0], read(model)[0])


@pytest.mark.parametrize("weight", [0.2, 1.0, 3.0])
def test_searches_find_the_best_of_all_strings(weight: float) -> None:
    sources, prompt, limit = task(6, 4, 4)
    prompt, model = prompt[:, :1], Recurrent(4)
    for language in (Speaker(4, seed=5), Ensemble((Speaker(4, seed=6), Speaker(4, seed=7)))):
        fusion = Fusion(model, language, weight)
        memory = fusion.encode(sources)
        found = Exact()(fusion, memory, prompt, limit)
        apart = (testing.brute_force(one, sources, prompt, limit, EOS) for one in (model, language))
        for row, (said, usual) in enumerate(zip(*apart, strict=True)):
            sums = {string: said[string] + weight * usual[string] for string in said}
            best = max(sums, key=sums.__getitem__)
            assert found.tokens[row, 0, : found.lengths[row, 0]].tolist() == list(best)
            assert found.scores[row, 0].item() == pytest.approx(sums[best], abs=1e-4)
        testing.check_beam_exact(fusion, sources, prompt, limit)


def test_a_fusion_quotes_its_model() -> None:
    def quoted(tokens: Int[Tensor, "B S"]) -> Tensor:
        fusion = Fusion(speaker("transformer"), Speaker(6), 0.5)
        source = Sequences(tokens, torch.full((len(tokens),), tokens.shape[1]))
        return fusion.quote(fusion.encode({"source": source})).data

    assert quoted(TOKENS).equal(TOKENS)
