"""Confidences: calibrated on held-out data, and nothing else depends on them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_language import LANGUAGE, saved

from transduce import folder
from transduce.bundle import WEIGHTS, Bundle
from transduce.confidence import confident, distributions, following, tempered
from transduce.data.batch import Example
from transduce.evaluate.calibration import calibration_score
from transduce.problem import Problem
from transduce.recipe.calibrate import CalibrationBlueprint, calibrate, fit
from transduce.recipe.use import evaluate, predict, stream
from transduce.result import Result, Token
from transduce.search import Beam, Greedy
from transduce.train.progress import Show
from transduce.transducer import Transducer

TEXTS = ["abc", "", "dab", "bcd", "ä"]
SHOW = Show(quiet=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return saved(tmp_path / "run", tiny.MODELS["transformer"])


def test_the_error_is_that_of_the_textbook() -> None:
    sure = [np.array([0.95, 0.85]), np.array([0.15, 1.0])]
    right = [np.array([True, False]), np.array([False, True])]
    found = calibration_score("token", sure, right, 1.0, bins=10, bootstrap=50)
    # bins: [0.95, 1.0] hit 2 of 2, 0.85 hit 0 of 1, 0.15 hit 0 of 1
    assert found.value == pytest.approx(100 * (abs(2 - 1.95) + 0.85 + 0.15) / 4)
    assert "level:token|bins:10|width:equal|temperature:1" in found.signature
    assert found.low is not None
    assert found.segments == 2
    assert calibration_score("token", sure, right, 1.0, bins=2).value == pytest.approx(
        100 * (abs(2 - 2.8) + 0.15) / 4
    )


def test_at_temperature_1_confidence_is_probability_and_nothing_else_changes(run: Path) -> None:
    model = Transducer.load(run)
    for search in (Greedy(), Beam(width=3, n_best=3)):
        plain = model(TEXTS, search)
        looked = confident(model, plain)
        for before, after in zip(plain, looked, strict=True):
            assert (after.text, after.score, after.log_prob) == (
                before.text, before.score, before.log_prob,
            )  # fmt: skip
            for token in after.tokens:
                assert token.confidence == pytest.approx(token.probability, abs=1e-5)
            if after.tokens:
                assert after.confidence == pytest.approx(math.exp(after.log_prob), abs=1e-5)


def test_nothing_is_sure_of_a_sentence_without_an_answer() -> None:
    said = Result("a", "b", -0.1, -0.1, True, (Token("b", -0.1, 3, confidence=0.9),))
    assert said.confidence == 0.9
    stuck = replace(said, log_prob=-math.inf, finished=False)
    assert stuck.confidence == replace(stuck, tokens=()).confidence == 0.0


def test_next_best_answers_have_confidences_too(run: Path) -> None:
    model = Transducer.load(run)
    (answer,) = confident(model, [model("abc", alternatives=2)])
    assert len(answer.alternatives) == 2
    assert all(one.confidence is not None for one in answer.alternatives)


def test_a_document_is_as_sure_as_its_sentences(run: Path) -> None:
    texts = ["abc! Dab!", "bcd"]
    changes = ["split=sentences", "confidence=true"]
    (sure, _), other = (row.split("\t") for row in predict(run, texts, changes, show=SHOW))
    sentences = confident(Transducer.load(run), Transducer.load(run)(["abc!", "Dab!"]))
    wanted = math.prod(one.confidence or 0.0 for one in sentences)
    assert float(sure) == pytest.approx(wanted, abs=1e-4)
    assert len(other) == 2


def test_alternatives_at_each_place_are_the_likeliest_tokens(run: Path) -> None:
    model = Transducer.load(run)
    model.temperature = 2.5
    (answer,) = confident(model, [model("dab", Greedy())], alternatives=3)
    symbols = [token.id for token in answer.tokens]
    ((_, log_probs),) = distributions(model, ["dab"], [symbols])
    calibrated = (log_probs / 2.5).softmax(-1)
    for place, token in enumerate(answer.tokens):
        values, ids = calibrated[place].topk(3)
        assert [other.id for other in token.alternatives] == ids.tolist()
        assert token.alternatives[0].piece == token.piece, "greedy search took the likeliest"
        assert token.confidence == pytest.approx(values[0].item(), abs=1e-5)
        assert [x.confidence for x in token.alternatives] == pytest.approx(values.tolist())
        said = log_probs[place, ids].tolist()
        assert [x.log_prob for x in token.alternatives] == pytest.approx(said)
    begun = "".join(token.piece for token in answer.tokens[:2])
    if model.target.encode(begun) == symbols[:2]:
        after = following(model, "dab", begun, 3)
        assert [x.id for x in after] == [x.id for x in answer.tokens[2].alternatives]
    assert len(following(model, "dab", count=4)) == 4


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_the_temperature_is_found_again(
    run: Path, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = torch.Generator().manual_seed(5)
    said = (torch.randn(8000, 12, generator=chance) * 3).log_softmax(-1)
    said[:, 3] = -torch.inf  # what a model rules out
    drawn = torch.multinomial(tempered(said, temperature).exp(), 1, generator=chance)[:, 0]
    parts = list(zip(torch.split(said, 500), torch.split(drawn, 500), strict=True))
    monkeypatch.setattr("transduce.recipe.calibrate._references", lambda *_: parts)
    model = Transducer.load(run)
    assert fit(model, []) == pytest.approx(temperature, rel=0.05)
    model.temperature = temperature
    found = CalibrationBlueprint().of_tokens(model, []).value
    assert found < 2
    model.temperature = 3.0
    assert CalibrationBlueprint().of_tokens(model, []).value > 5


def likelihood(model: Transducer, examples: list[Example], temperature: float) -> float:
    total = 0.0
    for example in examples:
        symbols = [*model.target.encode(example.references[0]), 2]
        ((_, log_probs),) = distributions(model, [example.sources["source"]], [symbols])
        said = tempered(log_probs, temperature)
        total += float(said.gather(1, torch.tensor(symbols)[:, None]).sum())
    return total


def test_no_other_temperature_fits_better(run: Path) -> None:
    model = Transducer.load(run)
    pairs = [(answer.source, answer.text) for answer in model(tiny.SOURCES[:4], Greedy())]
    pairs = [*pairs * 3, ("abc", "cba")]
    examples = [Example({"source": source}, (target,), "x") for source, target in pairs]
    found = fit(model, examples)
    assert 0.1 < found < 10
    best = likelihood(model, examples, found)
    for other in (0.7, 0.97, 1.03, 1.4):
        assert likelihood(model, examples, found * other) < best


def test_the_command_keeps_the_temperature_and_nothing_else_changes(
    run: Path, tmp_path: Path
) -> None:
    dev = tmp_path / "dev.tsv"
    dev.write_text("".join(f"{s}\t{t}\n" for s, t in zip(tiny.SOURCES, tiny.TARGETS, strict=True)))
    before = Transducer.load(run)(TEXTS, alternatives=2)
    weights = folder.digest(run / WEIGHTS)
    said = calibrate(run, [dev])
    assert said.startswith("temperature ")
    assert folder.digest(run / WEIGHTS) == weights
    model = Transducer.load(run)
    assert model.temperature == Bundle.load(run).blueprint.temperature != 1.0
    assert model(TEXTS, alternatives=2) == before
    assert calibrate(run, [dev]).split("\n")[0] == said.split("\n")[0]
    scores = evaluate(run, [dev], ["calibration.bins=5", "metrics=[exact]"])
    assert [score.name for score in scores[2:]] == ["ECE (tokens)", "ECE (answers)"]
    assert f"bins:5|width:equal|temperature:{model.temperature:.4g}" in scores[2].signature
    rows = list(predict(run, TEXTS, ["confidence=true"], show=SHOW))
    for row, answer in zip(rows, confident(model, model(TEXTS)), strict=True):
        shown, text = row.split("\t")
        assert text == answer.text
        assert float(shown) == pytest.approx(answer.confidence or 0.0, abs=1e-4)
    with pytest.raises(Problem, match=r"^confidence: it is about whole answers"):
        list(stream(run, ["abc"], ["search=greedy", "confidence=true"], show=SHOW))


def test_several_models_have_no_temperature(run: Path, tmp_path: Path) -> None:
    model = Transducer.load(run)
    model.temperature = 2.0
    language = Transducer.load(saved(tmp_path / "lm", LANGUAGE))
    assert model.ensemble([model]).temperature == 1.0
    assert model.with_language_model(language, 0.5).temperature == 1.0
    assert model.temperature == 2.0
