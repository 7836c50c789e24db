"""The laws over every encoder, decoder and connection between them, with every search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from transduce import testing
from transduce.blueprint import Part
from transduce.models.build import ModelBlueprint, build
from transduce.models.interface import DecoderBlueprint, EncoderBlueprint, HeadBlueprint
from transduce.models.layers import LayersBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.attend import ConnectionBlueprint
from transduce.nn.positions import PositionsBlueprint
from transduce.nn.similarity import SimilarityBlueprint
from transduce.nn.span import WindowSpanBlueprint
from transduce.search import Beam, Greedy, SearchBlueprint
from transduce.sequences import Sequences

BOS, EOS = 1, 2
TINY = {"embedding": 6, "width": 8, "inner": 12, "heads": 2, "layers": 2}
CHOICES: dict[str, list[Any]] = {
    "cell": ["lstm", "gru"],
    "bidirectional": [True, False],
    "key_value_heads": [None, 1],
    "similarity": [choice() for choice in SimilarityBlueprint.choices().values()],
    "span": [WindowSpanBlueprint(reach=1), WindowSpanBlueprint(reach=2, everywhere=1)],
    "norm": ["pre", "post"],
    "kernel": [5],
    "new_words": [2],
    "normalisation": ["layer", "rms"],
    "activation": ["relu", "gelu", "swiglu"],
    "connection": [choice() for choice in ConnectionBlueprint.choices().values()],
    "positions": [choice() for choice in PositionsBlueprint.choices().values()],
}
SAME_LAYERS = {"HybridEncoderBlueprint"}  # as the Transformer's, whose choices are turned
SEARCHES: list[SearchBlueprint] = [Greedy(), Beam(width=1), Beam(width=4, n_best=3)]


def variants(slot: type[Part]) -> Iterator[Part]:
    """Yield every part of the slot, tiny: as it is, and with each of its choices turned."""
    for part in slot.choices().values():
        sizes = {name: size for name, size in TINY.items() if name in part.model_fields}
        plain = part.model_validate(sizes)
        yield plain
        shared = LayersBlueprint.model_fields if part.__name__ in SAME_LAYERS else {}
        for name in part.model_fields:
            for value in () if name in shared else CHOICES.get(name, ()):
                if value != getattr(plain, name):
                    yield part.model_validate({**sizes, name: value})


def label(part: Part) -> str:
    """Name a part by what is not as usual about it."""
    unusual = part.model_fields_set - {*TINY, "kind"}
    values = [getattr(part, name) for name in type(part).model_fields if name in unusual]
    return "-".join([part.kind, *(label(v) if isinstance(v, Part) else str(v) for v in values)])


ENCODERS = {label(part): part for part in variants(EncoderBlueprint)}
DECODERS = {label(part): part for part in variants(DecoderBlueprint)}
HEADS = {label(part): part for part in variants(HeadBlueprint)}


class Case(NamedTuple):
    model: Seq2Seq
    sources: dict[str, Sequences]
    prompt: Int[Tensor, "B 1"]
    limit: Int[Tensor, "B"]


def case(
    encoder: str, decoder: str, number: int, symbols: int, longest: int, head: str = "linear"
) -> Case:
    """Return a random model that is sure of itself, random sources and limits."""
    torch.manual_seed(0)
    parts = {"encoder": ENCODERS[encoder], "decoder": DECODERS[decoder], "head": HEADS[head]}
    blueprint = ModelBlueprint.model_validate({**parts, "tie": "none"})
    model = build(blueprint, {"source": symbols, "target": symbols}).eval()
    with torch.no_grad():
        for part in (*model.encoders.values(), model.decoder, model.head):
            # Gated convolutions have no norm: three times the weights would make chaos of them.
            factor = 1 if "Convolutional" in type(part).__name__ else 3
            for weight in part.parameters():
                weight.mul_(factor if weight.dim() > 1 else 1)
    lengths = torch.randint(0, 12, (number,)).tolist()
    end = torch.tensor([EOS])
    symbols += model.head.slots
    rows = [torch.cat([torch.randint(3, symbols, (length,)), end]) for length in lengths]
    limit = torch.randint(1, longest + 1, (number,))
    return Case(model, {"source": Sequences.stack(rows)}, torch.full((number, 1), BOS), limit)


def pairs(every: bool) -> pytest.MarkDecorator:
    """Run a test for each part with every usual counterpart, or with the first one alone."""
    usual = EncoderBlueprint.choices().keys() | DecoderBlueprint.choices().keys()
    others = usual if every else {next(iter(ENCODERS)), next(iter(DECODERS))}
    chosen = [pair for pair in itertools.product(ENCODERS, DECODERS) if not others.isdisjoint(pair)]
    ids = [" ".join(pair) for pair in chosen]
    return pytest.mark.parametrize(("encoder", "decoder"), chosen, ids=ids)


@pairs(every=True)
def test_models_are_scorers(encoder: str, decoder: str) -> None:
    model, sources, prompt, _ = case(encoder, decoder, 5, 9, 1)
    tokens = torch.cat([prompt, torch.randint(0, 9, (5, 4))], 1)
    testing.check_scorer(model, sources, tokens)
    testing.check_normalised(model, sources, tokens)


@pairs(every=True)
def test_searches_of_models(encoder: str, decoder: str) -> None:
    given = case(encoder, decoder, 7, 9, 8)
    for search in SEARCHES:
        testing.check_search(search, *given)
    testing.check_beam_one_is_greedy(*given)


@pairs(every=True)
def test_wide_beam_is_exact(encoder: str, decoder: str) -> None:
    testing.check_beam_exact(*case(encoder, decoder, 3, 4, 4))


@pairs(every=False)
def test_answers_do_not_depend_on_the_batch(encoder: str, decoder: str) -> None:
    given = case(encoder, decoder, 64, 12, 6)
    for search in (Greedy(), Beam(width=3)):
        testing.check_search_batch_mates(search, *given, sizes=(1, 7))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("head", [name for name in HEADS if name != "linear"])
def test_heads(head: str, decoder: str) -> None:
    model, sources, prompt, _ = case("recurrent", decoder, 5, 9, 1, head)
    tokens = torch.cat([prompt, torch.randint(0, 9 + model.head.slots, (5, 4))], 1)
    testing.check_scorer(model, sources, tokens)
    testing.check_normalised(model, sources, tokens)
    for search in (Greedy(), Beam(width=4, n_best=3)):
        testing.check_search(search, *case("recurrent", decoder, 7, 9, 8, head))
    testing.check_beam_exact(*case("recurrent", decoder, 3, 4, 4, head))


@pytest.mark.parametrize("name", DECODERS)
def test_one_source_and_one_token_share_no_memory(name: str) -> None:
    parts = ModelBlueprint(encoder=ENCODERS["transformer"], decoder=DECODERS[name], tie="none")
    model = build(parts, {"source": 9, "target": 9}).eval()
    alone = {"source": Sequences.stack([torch.tensor([EOS])])}
    testing.check_no_shared_storage(model, alone, torch.tensor([[BOS]]))
