from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.sequences import Sequences

SIZES = {"source": 11, "target": 13}
LSTM = {"kind": "recurrent", "width": 8, "embedding": 6}
ATTENDING = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "inner": 8}


def make(encoder: Any, decoder: Any, tie: str = "output") -> Seq2Seq:
    facts = {"encoder": encoder, "decoder": decoder, "tie": tie}
    return build(ModelBlueprint.model_validate(facts), SIZES)


@pytest.mark.parametrize(
    ("decoder", "width"), [(LSTM, 6), (ATTENDING, 8)], ids=["recurrent", "transformer"]
)
@pytest.mark.parametrize("encoder", [LSTM, ATTENDING], ids=["recurrent", "transformer"])
def test_any_encoder_goes_with_any_decoder(encoder: Any, decoder: Any, width: int) -> None:
    model = make(encoder, decoder).eval()
    source = Sequences(torch.randint(0, 11, (2, 4)), torch.tensor([4, 2]))
    tokens = torch.randint(0, 13, (2, 3))
    log_probs, _ = model.extend(tokens, model.start(model.encode({"source": source})))
    assert log_probs.shape == (2, 3, 13)
    assert model.decoder.embedding.weight.shape == (13, width)


def test_a_joint_table_is_one_parameter() -> None:
    facts = {"encoder": ATTENDING, "decoder": ATTENDING, "tie": "all"}
    model = build(ModelBlueprint.model_validate(facts), {"source": 13, "target": 13})
    tables = [name for name, value in model.named_parameters() if value.shape == (13, 8)]
    assert len(tables) == 1


def test_tied_output_is_the_target_table_and_untied_output_is_its_own() -> None:
    tied, untied = make(ATTENDING, ATTENDING), make(ATTENDING, ATTENDING, "none")
    assert tied.head.get_parameter("weight") is tied.decoder.embedding.weight
    assert untied.head.get_parameter("weight") is not untied.decoder.embedding.weight
    names = [sorted(dict(model.named_parameters())) for model in (tied, untied)]
    assert set(names[1]) - set(names[0]) == {"head.weight"}


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_heads_must_divide_the_width(side: str) -> None:
    parts = {"encoder": ATTENDING, "decoder": ATTENDING} | {side: ATTENDING | {"heads": 3}}
    with pytest.raises(Problem) as caught:
        make(parts["encoder"], parts["decoder"])
    assert str(caught.value) == (
        f"model.{side}.heads: 3 heads do not divide a width of 8; take 2 heads, or a width of 6"
    )


def test_more_heads_than_width_are_answered_with_settings_that_work() -> None:
    with pytest.raises(Problem) as caught:
        make(ATTENDING | {"heads": 12}, ATTENDING)
    assert caught.value.what.endswith("take 8 heads, or a width of 12")


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_groups_of_heads_must_be_equal(side: str) -> None:
    parts = {"encoder": ATTENDING, "decoder": ATTENDING}
    parts |= {side: ATTENDING | {"heads": 4, "key_value_heads": 3}}
    with pytest.raises(Problem) as caught:
        make(parts["encoder"], parts["decoder"])
    assert str(caught.value) == (
        f"model.{side}.key_value_heads: 4 heads cannot share 3 heads of keys and values evenly; "
        "take one of 1, 2, 4"
    )


def test_shared_heads_make_caches_and_matrices_smaller() -> None:
    model = make(ATTENDING, ATTENDING | {"heads": 4, "key_value_heads": 2})
    source = Sequences(torch.randint(0, 11, (2, 4)), torch.tensor([4, 2]))
    _, state = model.extend(
        torch.randint(0, 13, (2, 3)), model.start(model.encode({"source": source}))
    )
    assert state.decoder.past[0].keys.shape == (2, 2, 3, 2)
    assert state.decoder.source.layers[0].values.shape == (2, 2, 4, 2)
    weight = model.get_parameter("decoder.layers.0.self_attention.query_key_value.weight")
    assert weight.shape == (8 + 2 * 4, 8)


def test_an_odd_width_has_no_halves() -> None:
    with pytest.raises(Problem) as caught:
        make(LSTM | {"width": 7}, LSTM)
    assert str(caught.value) == (
        "model.encoder.width: a bidirectional encoder halves its width, and 7 is odd; make it even"
    )
    make(LSTM | {"width": 7, "bidirectional": False}, LSTM)


def test_an_even_kernel_has_no_middle() -> None:
    with pytest.raises(Problem) as caught:
        make({"kind": "convolutional", "kernel": 4}, LSTM)
    assert str(caught.value) == (
        "model.encoder.kernel: a kernel of 4 has no middle, where the position that it reads for "
        "should stand; take 3 or 5"
    )
    make(LSTM, {"kind": "convolutional", "kernel": 4})


def test_dot_attention_needs_equal_widths() -> None:
    dot = {"connection": {"kind": "dot"}}
    with pytest.raises(Problem) as caught:
        make(LSTM | {"width": 10}, LSTM | dot)
    assert str(caught.value) == (
        "model.decoder.connection: dot attention needs an encoder as wide as the decoder "
        "(10 is not 8); make them equal or use 'general'"
    )
    make(LSTM, LSTM | dot)


@pytest.mark.parametrize("embedding", [6, 4])
def test_tables_of_different_shape_cannot_be_one(embedding: int) -> None:
    with pytest.raises(Problem) as caught:
        make(LSTM | {"embedding": embedding}, LSTM, "all")
    assert str(caught.value) == (
        f"model.tie: the embeddings of source (11, {embedding}) and target (13, 6) differ in "
        "shape, so they cannot be one; set text.joint: true and equal widths, or tie: output"
    )


@pytest.mark.parametrize(
    "asked", [{"order": "before"}, {"input_feeding": True}, {"context_gate": "both"}], ids=str
)
def test_nothing_can_be_made_of_a_context_that_is_not_there(asked: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        make(LSTM, LSTM | asked | {"connection": "initial"})
    assert caught.value.where == f"model.decoder.{next(iter(asked))}"
    assert "'initial' brings nothing" in caught.value.what
    make(LSTM, LSTM | asked | {"connection": "fixed"})


def test_what_reads_both_ways_has_no_reverse() -> None:
    with pytest.raises(Problem, match=r"model.encoder.reverse: .* reads from the end already"):
        make(LSTM | {"reverse": True}, LSTM)
    make(LSTM | {"reverse": True, "bidirectional": False}, LSTM)


def test_all_that_passes_of_the_summary_passes_the_bottleneck() -> None:
    model = make(LSTM, LSTM | {"bottleneck": 1, "connection": "fixed", "order": "before"}).eval()
    decoder = model.decoder
    bank = model.encode({"source": Sequences(torch.randint(0, 11, (1, 4)), torch.tensor([4]))})
    ways = decoder.get_parameter("bottleneck.0.weight")[0]
    summary = bank["source"].summary
    aside = torch.randn_like(summary)
    aside -= (aside @ ways)[:, None] * ways / ways.square().sum()
    moved = {"source": replace(bank["source"], summary=summary + aside)}
    tokens = torch.randint(0, 13, (1, 3))
    found, wanted = decoder(tokens, moved).features, decoder(tokens, bank).features
    torch.testing.assert_close(found, wanted)
