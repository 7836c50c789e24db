"""Positions that are learned end somewhere, and some settings make no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.positions import PositionsBlueprint
from transduce.nn.relative import BucketsBlueprint
from transduce.nn.similarity import SimilarityBlueprint
from transduce.problem import Problem
from transduce.sequences import Sequences

SIZES = {"kind": "transformer", "width": 8, "layers": 2, "heads": 2, "inner": 12}


def made(encoder: Any, decoder: Any) -> Seq2Seq:
    torch.manual_seed(0)
    facts = {"encoder": SIZES | encoder, "decoder": SIZES | decoder}
    return build(ModelBlueprint.model_validate(facts), {"source": 9, "target": 9}).eval()


def learned(longest: int) -> dict[str, Any]:
    return {"positions": {"kind": "learned", "longest": longest}}


def test_a_source_longer_than_the_table_is_refused_and_padding_beyond_it_is_not() -> None:
    model = made(learned(4), {})
    data = torch.randint(0, 9, (2, 5))
    with pytest.raises(Problem) as caught:
        model.encode({"source": Sequences(data, torch.tensor([5, 2]))})
    assert str(caught.value) == (
        "model.encoder.positions.longest: 5 symbols are more than the 4 positions learned; shorten "
        "the text, or train with more positions"
    )
    padded = model.encode({"source": Sequences(data, torch.tensor([4, 2]))})["source"]
    close = model.encode({"source": Sequences(data[:, :4], torch.tensor([4, 2]))})["source"]
    torch.testing.assert_close(padded.summary, close.summary)
    torch.testing.assert_close(padded.states[:, :4][close.mask], close.states[close.mask])


@pytest.mark.parametrize("span", ["full", {"kind": "segments", "length": 2, "memory": 1}])
@pytest.mark.parametrize("capacity", [None, 9])
def test_a_target_longer_than_the_table_is_refused(capacity: int | None, span: Any) -> None:
    model = made({}, learned(4) | {"span": span})
    source = Sequences(torch.randint(0, 9, (2, 3)), torch.tensor([3, 3]))
    tokens = torch.randint(0, 9, (2, 5))
    state = model.start(model.encode({"source": source}), 1, capacity)
    _, state = model.extend(tokens[:, :4], state)
    with pytest.raises(Problem, match=r"^model.decoder.positions.longest: 5 symbols are more"):
        model.extend(tokens[:, 4:], state)


def test_a_model_says_how_much_it_can_read() -> None:
    assert made(learned(4), {}).longest == {"source": 4, "target": None}
    assert made({"positions": "rotary"}, learned(6)).longest == {"source": None, "target": 6}


def test_rotary_positions_need_heads_of_even_width() -> None:
    with pytest.raises(Problem) as caught:
        made({}, {"width": 6, "positions": "rotary"})
    assert str(caught.value) == (
        "model.decoder.heads: rotary positions turn pairs of dimensions, and 2 heads of a width of "
        "6 have 3 each; make that even"
    )


@pytest.mark.parametrize("similarity", SimilarityBlueprint.choices())
@pytest.mark.parametrize("kind", PositionsBlueprint.choices())
def test_every_kind_trains_and_decodes_in_bf16(kind: str, similarity: str) -> None:
    """Scores stay near those of float32, though bf16 cannot tell places beyond 256 apart."""
    part = {"positions": kind, "similarity": similarity, "key_value_heads": 1}
    model = made(part, part)
    source = {"source": Sequences(torch.randint(3, 9, (2, 300)), torch.tensor([300, 7]))}
    tokens = torch.randint(3, 9, (2, 300))
    exact, _ = model.extend(tokens, model.start(model.encode(source)))
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = model.extend(tokens, model.start(model.encode(source)))
        state = model.start(model.encode(source), 1, 300)
        first, state = model.extend(tokens[:, :299], state)
        last, _ = model.extend(tokens[:, 299:], state)
    for found in (rounded, torch.cat([first, last], 1)):
        assert (found.float() - exact).abs().mean() < 0.05
    gradients = torch.autograd.grad(rounded.float().sum(), list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_decoder_has_no_window() -> None:
    made({"span": "window"}, {"span": "segments"})
    with pytest.raises(ValueError, match=r"no such choice 'window'; \(full, segments\)"):
        made({}, {"span": "window"})


def test_one_frequency_is_no_series() -> None:
    with pytest.raises(Problem, match=r"^model.encoder.width: a width of 2 has one frequency"):
        made({"width": 2, "heads": 1, "positions": "tensor2tensor"}, {})


def test_ranges_must_reach_beyond_single_distances() -> None:
    with pytest.raises(ValueError, match="farthest 16 is within the 16 distances"):
        BucketsBlueprint(farthest=16)


def test_the_past_of_a_decoder_has_vectors_for_no_distance_ahead() -> None:
    model = made({"positions": "shaw"}, {"positions": {"kind": "shaw", "clip": 3}})
    assert model.get_parameter("encoders.source.layers.0.self_attention.in_heads.keys").shape == (
        33,
        4,
    )
    assert model.get_parameter("decoder.layers.1.self_attention.in_heads.vectors").shape == (4, 4)
