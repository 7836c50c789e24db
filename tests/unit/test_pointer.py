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
