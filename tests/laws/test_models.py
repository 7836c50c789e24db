"""The laws over every encoder, decoder and connection between them, with every search."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Int
from torch import Tensor

from transduce import testing
from transduce.blueprint import Part
from transduce.models.build import ModelBlueprint, build
from transduce.models.decoders.recurrent import RecurrentDecoderBlueprint
from transduce.models.decoders.transformer import TransformerDecoderBlueprint
from transduce.models.encoders.recurrent import RecurrentEncoderBlueprint
from transduce.models.encoders.transformer import TransformerEncoderBlueprint
from transduce.models.interface import DecoderBlueprint, EncoderBlueprint, HeadBlueprint
from transduce.models.layers import LayersBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.attend import (
    ConnectionBlueprint,
    CoverageAttentionBlueprint,
    FixedContextBlueprint,
    GeneralAttentionBlueprint,
    LocalMonotonicBlueprint,
    LocalPredictiveBlueprint,
    LocationAwareAttentionBlueprint,
    MonotonicAttentionBlueprint,
    MultiHeadAttentionBlueprint,
)
from transduce.nn.positions import PositionsBlueprint
from transduce.nn.relative import TransformerXlBlueprint
from transduce.nn.similarity import SimilarityBlueprint
from transduce.nn.span import SegmentSpanBlueprint, WindowSpanBlueprint
from transduce.search import (
    BankedBeam,
    Beam,
    DiverseBeam,
    Draft,
    Greedy,
    Sample,
    SearchBlueprint,
    StochasticBeam,
)
from transduce.sequences import Sequences

BOS, EOS = 1, 2
TINY = {"embedding": 6, "width": 8, "inner": 12, "heads": 2, "layers": 2}
LOCAL = LocalMonotonicBlueprint(reach=2)
CHOICES: dict[str, list[Any]] = {
    "key_value_heads": [None, 1],
    "similarity": [choice() for choice in SimilarityBlueprint.choices().values()],
    "span": [
        WindowSpanBlueprint(reach=1),
        WindowSpanBlueprint(reach=2, everywhere=1),
        SegmentSpanBlueprint(length=2, memory=3),
        SegmentSpanBlueprint(length=3, memory=1),
    ],
    "kernel": [5],
    "new_words": [2],
    "normalisation": ["layer", "rms"],
    "activation": ["relu", "gelu", "swiglu"],
    "positions": [choice() for choice in PositionsBlueprint.choices().values()],
    "cell": ["lstm", "gru", "tanh", "relu"],
    "order": ["before"],
    "input_feeding": [True],
    "context_gate": ["source", "target", "both"],
    "bottleneck": [3],
    "first_cell": ["summary"],
    "residual": [True],
    "norm": ["pre", "post"],
    "normalised": [True],
    "variational": [True],
    "truncate": [2],
    "bidirectional": [True, False],
    "connection": [
        *(choice() for choice in ConnectionBlueprint.choices().values()),
        GeneralAttentionBlueprint(normaliser="sparsemax"),
        GeneralAttentionBlueprint(normaliser="entmax15"),
        GeneralAttentionBlueprint(window=LOCAL),
        MultiHeadAttentionBlueprint(heads=2, window=LocalPredictiveBlueprint(reach=2)),
    ],
}
SAME_LAYERS = {"HybridEncoderBlueprint"}  # as the Transformer's, whose choices are turned
SEARCHES: list[SearchBlueprint] = [Greedy(), Beam(width=1), Beam(width=4, n_best=3)]
MORE_SEARCHES: list[SearchBlueprint] = [
    Sample(samples=3),
    StochasticBeam(width=3),
    BankedBeam(width=3, n_best=2),
    DiverseBeam(groups=2, width=2),
]


def variants(slot: type[Part]) -> Iterator[Part]:
    """Yield every part of the slot, tiny: as it is, and with each of its choices turned."""
    for part in slot.choices().values():
        sizes = {name: size for name, size in TINY.items() if name in part.model_fields}
        plain = part.model_validate(sizes)
        yield plain
        shared = LayersBlueprint.model_fields if part.__name__ in SAME_LAYERS else {}
        for name in part.model_fields:
            for value in () if name in shared else CHOICES.get(name, ()):
                suits = fits(value, part.model_fields[name].annotation)
                if suits and value != getattr(plain, name):
                    yield part.model_validate({**sizes, name: value})


def fits(value: object, slot: Any) -> bool:
    """Return whether a part belongs to the slot; what is no part does."""
    return not isinstance(value, Part) or isinstance(value, slot)


def label(part: Part) -> str:
    """Name a part by what is not as usual about it."""
    words = [part.kind]
    for name in sorted(part.model_fields_set - {*TINY, "kind"}):
        value = getattr(part, name)
        said = {True: name, False: f"not {name}"} if isinstance(value, bool) else {}
        words.append(label(value) if isinstance(value, Part) else said.get(value, str(value)))
    return "-".join(words)


def named(parts: Iterable[Part]) -> dict[str, Any]:
    """Return the parts by their labels, which differ."""
    listed = [(label(part), part) for part in parts]
    assert len(dict(listed)) == len(listed)
    return dict(listed)


SEGMENTS: dict[str, Any] = {
    "positions": TransformerXlBlueprint(),
    "span": SegmentSpanBlueprint(length=2, memory=2),
}
FURTHER: list[Part] = [
    TransformerEncoderBlueprint(width=8, inner=12, heads=2, layers=2, **SEGMENTS),
    RecurrentEncoderBlueprint(bidirectional=False, reverse=True, embedding=6, width=8, layers=2),
    *(
        RecurrentDecoderBlueprint(embedding=6, width=8, layers=2, input_feeding=True, **facts)
        for facts in (
            {"order": "before", "cell": "gru"},
            {"order": "before", "connection": FixedContextBlueprint(), "cell": "relu"},
            {"order": "before", "connection": CoverageAttentionBlueprint(), "residual": True},
            {"connection": LocationAwareAttentionBlueprint(window=LOCAL), "normalised": True},
            {"connection": MonotonicAttentionBlueprint(), "order": "before"},
            {"context_gate": "both", "connection": FixedContextBlueprint()},
        )
    ),
    RecurrentDecoderBlueprint(
        embedding=6, width=8, order="before", connection=FixedContextBlueprint(), bottleneck=3
    ),
    TransformerDecoderBlueprint(width=8, inner=12, heads=2, layers=2, **SEGMENTS),
]


READERS = [part for part in variants(EncoderBlueprint) if part.kind != "none"]
ENCODERS = named([*READERS, *FURTHER[:2]])
DECODERS = named([*variants(DecoderBlueprint), *FURTHER[2:]])
HEADS = named(variants(HeadBlueprint))


class Case(NamedTuple):
    model: Seq2Seq
    sources: dict[str, Sequences]
    prompt: Int[Tensor, "B 1"]
    limit: Int[Tensor, "B"]


def case(
    encoder: str, decoder: str, number: int, symbols: int, longest: int, head: str = "linear"
) -> Case:
    """Return the case of the parts of these names."""
    parts = {"encoder": ENCODERS[encoder], "decoder": DECODERS[decoder], "head": HEADS[head]}
    blueprint = ModelBlueprint.model_validate({**parts, "tie": "none"})
    return confident(blueprint, number, symbols, longest)


def confident(blueprint: ModelBlueprint, number: int, symbols: int, longest: int) -> Case:
    """Return a random model that is sure of itself, random sources and limits."""
    torch.manual_seed(0)
    model = build(blueprint, {"source": symbols, "target": symbols}).eval()
    names = label(blueprint.encoder) + label(blueprint.decoder)
    with torch.no_grad():
        for part in (*model.encoders.values(), model.decoder, model.head):
            # Gated convolutions have no norm: three times the weights would make chaos of them.
            convolves = "Convolutional" in type(part).__name__
            for name, weight in part.named_parameters():
                explodes = "weight_" in name and "relu" in names
                weight.mul_(3 if weight.dim() > 1 and not (convolves or explodes) else 1)
    lengths = torch.randint(0, 12, (number,)).tolist()
    end = torch.tensor([EOS])
    symbols += model.head.slots
    rows = [torch.cat([torch.randint(3, symbols, (length,)), end]) for length in lengths]
    limit = torch.randint(1, longest + 1, (number,))
    return Case(model, {"source": Sequences.stack(rows)}, torch.full((number, 1), BOS), limit)


def pairs(every: bool) -> pytest.MarkDecorator:
    """Run a test for every part with the first of its counterparts, or with each kind of them."""
    usual = [[name for name in side if "-" not in name] for side in (ENCODERS, DECODERS)]
    first, second = usual if every else (names[:1] for names in usual)
    product = itertools.product(ENCODERS, DECODERS)
    chosen = [pair for pair in product if pair[0] in first or pair[1] in second]
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
    testing.check_draft_is_greedy(Draft(span=3, match=1), *given)


@pytest.mark.parametrize("decoder", DECODERS)
def test_more_searches_of_models(decoder: str) -> None:
    given = case("recurrent", decoder, 7, 9, 8)
    for search in MORE_SEARCHES:
        testing.check_search(search, *given)


@pairs(every=True)
def test_wide_beam_is_exact(encoder: str, decoder: str) -> None:
    testing.check_beam_exact(*case(encoder, decoder, 3, 4, 4))


@pairs(every=False)
def test_answers_do_not_depend_on_the_batch(encoder: str, decoder: str) -> None:
    given = case(encoder, decoder, 32, 12, 6)
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
    testing.check_draft_is_greedy(Draft(), *case("recurrent", decoder, 7, 9, 8, head))
    testing.check_beam_exact(*case("recurrent", decoder, 3, 4, 4, head))


@pytest.mark.parametrize("name", DECODERS)
def test_one_source_and_one_token_share_no_memory(name: str) -> None:
    parts = ModelBlueprint(encoder=ENCODERS["transformer"], decoder=DECODERS[name], tie="none")
    model = build(parts, {"source": 9, "target": 9}).eval()
    alone = {"source": Sequences.stack([torch.tensor([EOS])])}
    testing.check_no_shared_storage(model, alone, torch.tensor([[BOS]]))
