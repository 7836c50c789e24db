"""Models that copy: what they need, what they show, and that they are kept whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from transduce.bundle import Bundle
from transduce.experiment import Experiment
from transduce.models.build import ModelBlueprint, build
from transduce.problem import Problem
from transduce.search import Greedy
from transduce.train.checkpoint import tensors
from transduce.transducer import Transducer

TEXTS = ["abc", "bcd", "", "a cab"]


@pytest.fixture(scope="module")
def model() -> Transducer:
    return Transducer(tiny.bundle(tiny.COPYING, joint=True), torch.device("cpu"))


def test_both_sides_need_the_same_symbols() -> None:
    blueprint = ModelBlueprint.model_validate(tiny.COPYING)
    with pytest.raises(Problem, match=r"^model\.head: .*; set text\.joint: true, or"):
        build(blueprint, {"source": 9, "target": 8})
    corpus = {"kind": "tsv", "path": "a.tsv"}
    facts = {"data": {"train": corpus, "dev": corpus}, "model": {"head": "pointer_generator"}}
    with pytest.raises(ValueError, match=r"needs one vocabulary; set text\.joint: true, or"):
        Experiment.model_validate(facts)
    Experiment.model_validate({**facts, "text": {"joint": True}})


@pytest.fixture(scope="module")
def open_model() -> Transducer:
    head = {"kind": "pointer_generator", "new_words": 3}
    made = tiny.bundle(tiny.COPYING | {"head": head}, joint=True)
    with torch.no_grad():
        made.model.head.get_parameter("gate.bias")[:] = -20.0  # it copies, mostly
    return Transducer(made, torch.device("cpu"))


def test_new_symbols_of_one_source_are_not_those_of_another(open_model: Transducer) -> None:
    texts = ["ξψω", "ωab", "xyz", "abc", "ξ ψ ω x y z"]
    answers = open_model(texts, alternatives=2, attention=True)
    said = {
        text: {token.piece for token in answer.tokens}
        for text, answer in zip(texts, answers, strict=True)
    }
    assert any(pieces & set("ξψωxyz") for pieces in said.values()), "this model copies"
    for text, answer in zip(texts, answers, strict=True):
        alone = open_model(text)
        assert alone.text == answer.text
        assert alone.log_prob == pytest.approx(answer.log_prob, abs=1e-4)
        shown = ["<unk>" if c in text and c in "xyz" and " " in text else c for c in text]
        assert list(answer.source_pieces) == [*shown, "</s>"]
        for other in (answer, *answer.alternatives):
            assert {t.piece for t in other.tokens} & set("ξψωxyz") <= set(text)
            forced = open_model.force([text], [other.text])[0]
            readable = "⁇" not in other.text and other.text == other.text.strip()
            if readable and other.finished:
                assert [t.piece for t in forced] == [t.piece for t in other.tokens]
                assert sum(t.log_prob for t in forced) == pytest.approx(other.log_prob, abs=1e-3)


def test_a_model_with_new_words_is_kept_whole(open_model: Transducer, tmp_path: Path) -> None:
    open_model.bundle.save(tmp_path / "model", tensors(open_model.model), "card")
    again = Transducer(Bundle.load(tmp_path / "model"), torch.device("cpu"))
    assert again(["ξψω", "abc"]) == open_model(["ξψω", "abc"])


def test_what_was_copied_is_shown_if_asked_for(model: Transducer) -> None:
    plain = model(TEXTS, Greedy())
    for answer, unwatched in zip(model(TEXTS, Greedy(), attention=True), plain, strict=True):
        assert (answer.text, answer.tokens) == (unwatched.text, unwatched.tokens)
        assert unwatched.copying is None
        if not answer.source:
            continue
        assert answer.copying is not None
        assert answer.copying.shape == (len(answer.tokens), len(answer.source_pieces))
        assert (answer.copying >= 0).all()
        assert (answer.copying.sum(1) <= 1 + 1e-6).all()
        for token, copied in zip(answer.tokens, answer.copying, strict=True):
            same = np.array([piece == token.piece for piece in answer.source_pieces])
            assert token.probability >= copied[same].sum() - 1e-5


def test_a_head_that_does_not_copy_has_nothing_to_show() -> None:
    answer = tiny.transducer(tiny.MODELS["recurrent"])("abc", attention=True)
    assert answer.attention is not None
    assert answer.copying is None


def test_a_model_that_copies_is_kept_whole(model: Transducer, tmp_path: Path) -> None:
    model.bundle.save(tmp_path / "model", tensors(model.model), "card")
    again = Transducer(Bundle.load(tmp_path / "model"), torch.device("cpu"))
    assert again(TEXTS) == model(TEXTS)
