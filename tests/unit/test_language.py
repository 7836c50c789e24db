"""Language models from text to text: trained, scored, asked to go on, and fused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from transduce.blueprint import parse
from transduce.bundle import Bundle, BundleBlueprint
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.check import check
from transduce.recipe.score import score
from transduce.recipe.use import evaluate, predict
from transduce.search import Beam, Exact, Greedy, Sample
from transduce.search.constrain import Own, PrefixBlueprint
from transduce.text.codec import TextBlueprint, learn_codecs
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show
from transduce.transducer import Transducer

SETTINGS = """
data:
  train: {kind: monolingual, path: train.txt}
  dev: {kind: monolingual, path: dev.txt}
  test: {kind: monolingual, path: dev.txt}
text: {source: {tokens: characters}}
model:
  encoder: none
  decoder: {kind: recurrent, connection: initial, embedding: 8, width: 24, dropout: 0}
train: {max_steps: 120, batch: {tokens: 128}, threads: 1, precision: fp32, optimiser: {rate: 1e-2}}
validation: {every: 60, choose_by: loss}
"""
QUIET = Show(quiet=True)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    words = [f"{number:03d}" for number in range(120)]
    (tmp_path / "train.txt").write_text("".join(f"{word}\n" for word in words[:100]))
    (tmp_path / "dev.txt").write_text("".join(f"{word}\n" for word in words[100:]))
    return tmp_path


def experiment(*changes: str) -> Experiment:
    return parse(SETTINGS, Experiment, "lm.yaml", changes)


def test_a_language_model_is_trained_and_used_like_any_model(data: Path) -> None:
    assert "nothing stands in the way" in check(experiment(), data, QUIET)
    assert train(experiment(), data, data / "lm", QUIET) == 0
    written = json.loads((data / "lm" / "scores.json").read_text())["test"]["perplexity"]
    (found,) = evaluate(data / "lm", [data / "dev.txt"])
    assert found.value == pytest.approx(written["value"], rel=1e-5)
    assert 1 < found.value < 11, "it has learned which symbols there are"
    ends = [float(row.split(" ")[-1]) for row in score(data / "lm", ["012", "01"], "x")]
    assert ends[0] > ends[1] + 0.5, "it has learned how long texts are"
    model = Transducer.load(data / "lm")
    for answer in model(["01", "9", ""], Sample(samples=3), alternatives=2):
        assert all(one.text.startswith(answer.source) for one in (answer, *answer.alternatives))
    assert (data / "lm" / "report.html").stat().st_size > 0
    with pytest.raises(Problem, match="give one text file"):
        evaluate(data / "lm", [data / "dev.txt", data / "dev.txt"])
    with pytest.raises(Problem, match="search"):
        evaluate(data / "lm", [data / "dev.txt"], ["search.kind=greedy"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("data.dev={kind: tsv, path: x.tsv}", "data.dev: a model without an encoder reads no"),
        ("model.encoder=recurrent", "data.train: monolingual text has no sources"),
        ("validation.choose_by=metric", "a language model has no answers"),
        ("metrics=[exact]", "metrics: a language model is judged by its loss"),
        ("validation.search=beam", "validation.search: a language model is judged by its loss"),
        ("validation.examples=9", "validation.examples: a language model is judged by its loss"),
        ("train.batch.curriculum=length", "train.batch.curriculum: it goes by sources"),
        ("constraints=[{kind: prefix, text: a}]", "constraints: a language model goes on with"),
        ("data.train.group=true", "there are no sources to group by"),
        ("text.of=other", "a vocabulary that is taken has its settings"),
    ],
)
def test_what_makes_no_sense_is_refused(change: str, what: str) -> None:
    with pytest.raises(Problem, match=what):
        experiment(change)


def test_a_line_that_is_no_text_is_named(data: Path) -> None:
    (data / "dev.txt").write_text("012\n\n013\n")
    with pytest.raises(Problem, match=r"dev\.txt:2: the target is empty"):
        train(experiment(), data, data / "lm", QUIET)


def saved(folder: Path, model: dict[str, Any], tokens: str = "characters", seed: int = 0) -> Path:
    """Save a random model whose target vocabulary is that of every other."""
    text = TextBlueprint.model_validate({"source": {"tokens": tokens}})
    codecs = learn_codecs(text, tiny.SOURCES, tiny.TARGETS)
    alone = model["encoder"] == "none"
    if alone:
        codecs["source"] = codecs["target"]
    facts = {"model": model, "search": "beam", "joint": alone, "longest": (1.0, 8)}
    torch.manual_seed(seed)
    made = Bundle.make(BundleBlueprint.model_validate(facts), codecs)
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.mul_(4 if weight.dim() > 1 else 1)
    made.save(folder, tensors(made.model), "a card")
    return folder


LANGUAGE = {"encoder": "none", "decoder": tiny.TRANSFORMER}


def test_vocabularies_are_taken_from_a_run(data: Path) -> None:
    other = saved(data / "other", tiny.MODELS["recurrent"])
    changes = ["text={of: other}", "train.max_steps=1", "validation.every=1"]
    assert train(experiment(*changes), data, data / "lm", QUIET) == 0
    model, language = Transducer.load(other), Transducer.load(data / "lm")
    assert language.target.fingerprint == model.target.fingerprint
    assert model.with_language_model(language, 0.1)("abc").text is not None
    with pytest.raises(Problem, match=r"^text\.of: nowhere holds no trained model"):
        train(experiment("text={of: nowhere}"), data, data / "two", QUIET)


def test_fusion_adds_what_the_language_model_finds(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", tiny.MODELS["recurrent"])
    lm = saved(tmp_path / "lm", LANGUAGE, seed=1)
    model, language = Transducer.load(run), Transducer.load(lm)
    texts = ["abc", "", "dab", "ä"]
    without = model.with_language_model(language, 0.0)
    assert [x.text for x in without(texts)] == [x.text for x in model(texts)]
    fused, other = model.with_language_model(language, 0.7), 0
    for search in (Greedy(), Beam(), Exact(nodes=50)):
        together = fused(texts, search)
        for text, answer in zip(texts, together, strict=True):
            assert answer.score == pytest.approx(fused(text, search).score, abs=1e-4)
            assert answer.text == fused(text, search).text
            if not answer.finished or not answer.tokens:
                continue
            said, usual = (
                [token.log_prob for token in one.force([source], [answer.text])[0]]
                for one, source in ((model, text), (language, ""))
            )
            if len(said) == len(answer.tokens):
                wanted = [a + 0.7 * b for a, b in zip(said, usual, strict=True)]
                got = [token.log_prob for token in answer.tokens]
                assert got == pytest.approx(wanted, abs=1e-4)
        other += [x.text for x in together] != [x.text for x in model(texts, search)]
    assert other, "the language model had no say"


def test_fusion_is_a_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(tmp_path / "run", tiny.MODELS["recurrent"])
    lm = saved(tmp_path / "lm", LANGUAGE, seed=1)
    change = f"fusion={{run: {lm}, weight: 0.7}}"
    wanted = Transducer.load(run).with_language_model(Transducer.load(lm), 0.7)(["abc", "dab"])
    assert list(predict(run, ["abc", "dab"], [change], show=Show())) == [x.text for x in wanted]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("abc\tcba\ndab\tbad\n")
    plain, fused = (evaluate(run, [pairs], changes)[-1] for changes in ([], [change]))
    assert plain.value == fused.value, "perplexity is the model's own"


def test_what_cannot_be_fused_is_refused(tmp_path: Path) -> None:
    model = Transducer.load(saved(tmp_path / "run", tiny.MODELS["recurrent"]))
    language = Transducer.load(saved(tmp_path / "lm", LANGUAGE))
    words = Transducer.load(saved(tmp_path / "words", LANGUAGE, tokens="words"))
    with pytest.raises(Problem, match=r"^fusion\.run: its target vocabulary .*words"):
        model.with_language_model(words, 0.1)
    with pytest.raises(Problem, match=r"^fusion\.run: fusion takes a model that reads"):
        model.with_language_model(model, 0.1)
    with pytest.raises(Problem, match="is no member of an ensemble"):
        model.ensemble([language])
    with pytest.raises(Problem, match="put the models together first"):
        model.with_language_model(language, 0.1).ensemble([model])
    both = model.ensemble([model]).with_language_model(language.ensemble([language]), 0.1)
    assert both("abc").finished in (True, False)


def test_what_a_language_model_goes_on_with_is_the_text(tmp_path: Path) -> None:
    language = Transducer.load(saved(tmp_path / "lm", LANGUAGE))
    (answer,) = language(["a"], own=[Own(required=("b",))])
    assert answer.text.startswith("a")
    assert "b" in answer.text
    with pytest.raises(Problem, match=r"^own\.prefix: a language model goes on with the text"):
        language(["a"], own=[Own(prefix="ab")])
    with pytest.raises(Problem, match=r"^constraints: a language model goes on with the text"):
        language(["a"], constraints=[PrefixBlueprint(text="b")])


def test_answers_stop_where_the_language_model_has_no_positions(tmp_path: Path) -> None:
    short = tiny.TRANSFORMER | {"positions": {"kind": "learned", "longest": 3}}
    language = saved(tmp_path / "lm", {"encoder": "none", "decoder": short})
    model = Transducer.load(saved(tmp_path / "run", tiny.MODELS["recurrent"]))
    fused = model.with_language_model(Transducer.load(language), 0.1)
    assert max(len(answer.tokens) for answer in fused(tiny.SOURCES)) <= 3
    with pytest.raises(Problem, match=r"the target has 5 symbols with its end.*3 positions"):
        fused.force(["abc"], ["abcd"])
