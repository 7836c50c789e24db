"""A document's answer is made of what each of its sentences is answered alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from transduce.bundle import Bundle, BundleBlueprint
from transduce.document import unfold
from transduce.problem import Problem
from transduce.recipe.use import evaluate, predict, stream
from transduce.search import Beam, Exact, Greedy, Sample, SearchBlueprint, Speculative
from transduce.text.codec import TextBlueprint, learn_codecs
from transduce.text.sentences import Sentences
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show
from transduce.transducer import Transducer

TEXT = " Abc. bcd? Dab!\n\n A cab.  Ab cd!\t\n"
SENTENCES = ["Abc. bcd?", "Dab!", "A cab.", "Ab cd!"]
SHORT: dict[str, Any] = tiny.TRANSFORMER | {"positions": {"kind": "learned", "longest": 8}}
LIMITED = {"encoder": SHORT, "decoder": tiny.TRANSFORMER}


def folder_of(model: dict[str, Any], folder: Path) -> Path:
    made = tiny.bundle(model)
    made.save(folder / "model", tensors(made.model), "a card")
    return folder / "model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tiny.MODELS["recurrent"], tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("name", tiny.MODELS)
@pytest.mark.parametrize("search", [Greedy(), Beam(width=3), Sample(seed=3), Exact()], ids=str)
def test_each_sentence_is_answered_as_if_alone(name: str, search: SearchBlueprint) -> None:
    model = tiny.transducer(tiny.MODELS[name])
    found = model.document(TEXT, search)
    assert found.source == TEXT
    assert [one.source for one in found.sentences] == SENTENCES
    for one in found.sentences:
        assert one.span is not None
        assert TEXT[one.span.start : one.span.end] == one.source
        assert one.span.whole
        alone = model(one.source, search)
        assert (one.text, one.finished) == (alone.text, alone.finished)
        assert one.score == pytest.approx(alone.score, abs=1e-4)
    said = [one.text for one in found.sentences]
    assert found.text == " {} {}\n\n {}  {}\t\n".format(*said)
    assert found.score == pytest.approx(sum(one.score for one in found.sentences))
    assert len(found.tokens) == sum(len(one.tokens) for one in found.sentences)
    assert found.finished == all(one.finished for one in found.sentences)
    assert found.proven == all(one.proven for one in found.sentences)


def test_blank_documents_stay_as_they_are() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    for blank in ("", " \n\n\t"):
        found = model.document(blank)
        assert (found.text, found.sentences, found.finished) == (blank, (), True)


def test_what_is_too_long_for_a_model_is_cut_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text = tiny.transducer(LIMITED), "dab cab ab bcd. Abc."
    with pytest.raises(Problem, match="learned 8 positions"):
        model(text)
    pieces = model.document(text).sentences
    assert [(one.source, one.span and one.span.whole) for one in pieces] == [
        ("dab cab", False), ("ab bcd.", False), ("Abc.", True),
    ]  # fmt: skip
    shorter = model.document("abcd dc", split=Sentences(longest=5))
    assert [one.source for one in shorter.sentences] == ["abcd", "dc"]
    lines = ["abc.", text]
    list(predict(folder_of(LIMITED, tmp_path), lines, ["split=sentences"], show=Show()))
    said = "warning: 1 answers come from pieces of sentences that were too long: lines 2"
    assert said in capsys.readouterr().err
    list(
        stream(
            folder_of(LIMITED, tmp_path), lines, ["search=greedy", "split=sentences"], show=Show()
        )
    )
    assert said in capsys.readouterr().err
    data = tmp_path / "test.tsv"
    data.write_text("abcd dc\tcd\n")
    shorter_ones = ["metrics=[exact]", "split.kind=sentences", "split.longest=5"]
    with pytest.warns(UserWarning, match="1 answers come from pieces of sentences"):
        evaluate(tmp_path / "model", [data], shorter_ones)


def test_what_is_too_long_for_a_draft_model_is_cut() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    aided = model.with_draft_model(tiny.transducer(LIMITED))
    pieces = aided.document("dab cab ab bcd.", Speculative()).sentences
    assert [one.source for one in pieces] == ["dab cab", "ab bcd."]


def tagged() -> Transducer:
    """Return a model that knows tags."""
    text = TextBlueprint.model_validate({"source": {"tokens": "characters"}})
    codecs = learn_codecs(text, tiny.SOURCES, tiny.TARGETS, ["<2de>", "<2fr>"])
    facts = {"model": LIMITED, "search": "greedy", "longest": (1.0, 3)}
    made = Bundle.make(BundleBlueprint.model_validate(facts), codecs)
    return Transducer(made, torch.device("cpu"))


def test_the_tag_of_a_document_is_read_before_each_sentence() -> None:
    model = tagged()
    asked = "<2de> Abc. Dab cab!\n<2fr> Bcd."
    found = model.document(asked)
    wanted = ["<2de> Abc.", "<2de> Dab", "<2de> cab!", "<2fr> Bcd."]
    assert [one.source for one in found.sentences] == wanted
    assert found.text == "{} {} {}\n{}".format(*(model(one).text for one in wanted))
    spans = model.spans(asked, Sentences())
    shown = unfold(asked, spans, partial(model.stream, search=Greedy()))
    assert "".join(shown) == found.text
    assert [one.source for one in model.document("Abc. Bcd.").sentences] == ["Abc.", "Bcd."]


@pytest.mark.parametrize(
    ("asked", "wanted", "written"),
    [
        ("<2de>\nAb. Bc!\nCd.", ["<2de> Ab.", "<2de> Bc!", "<2de> Cd."], "\n{} {}\n{}"),
        ("Ab.\n<2de>\nBc! Cd.", ["Ab.", "<2de> Bc!", "Cd."], "{}\n\n{} {}"),
        ("<2de>\n<2fr> Ab. Bc!", ["<2de> <2fr> Ab.", "<2de> <2fr> Bc!"], "\n{} {}"),
        ("Ab. <2de>\nBc!", ["Ab. <2de>", "Bc!"], "{}\n{}"),
        ("Ab.\n <2de> ", ["Ab."], "{}\n  "),
        ("<2de>", [], ""),
    ],
)
def test_a_tag_alone_is_no_sentence(asked: str, wanted: list[str], written: str) -> None:
    model = tagged()
    found = model.document(asked)
    assert [one.source for one in found.sentences] == wanted
    answers = (model(one).text for one in wanted)
    assert found.text == written.format(*answers)
    shown = unfold(asked, model.spans(asked, Sentences()), partial(model.stream, search=Greedy()))
    assert "".join(shown) == found.text


def test_lines_are_documents_where_it_is_asked(run: Path) -> None:
    lines = ["", "abc. Dab! Bcd.", " ", "", "cab.", ""]
    model, split = Transducer.load(run), "split=sentences"
    wanted = [model.document(line).text for line in lines]
    assert wanted[1] == " ".join(one.text for one in model(["abc.", "Dab!", "Bcd."]))
    assert wanted[2] == " "
    for ahead in (1, 2, 4096):
        assert list(predict(run, lines, [split], ahead=ahead, show=Show())) == wanted
    greedy = ["search=greedy", split]
    wanted = list(predict(run, lines, greedy, show=Show()))
    assert "".join(stream(run, lines, greedy, show=Show())).split("\n")[:-1] == wanted
    risk = ["risk.metric=exact", "risk.candidates=2"]
    assert len(list(predict(run, lines, [split, *risk], show=Show()))) == len(lines)
    with pytest.raises(Problem, match="a document has one answer"):
        list(predict(run, lines, [split], best=2, show=Show()))
    with pytest.raises(Problem, match="no such choice"):
        list(predict(run, lines, ["split=paragraphs"], show=Show()))


def test_documents_are_evaluated(run: Path, tmp_path: Path) -> None:
    text = "abc. Dab!"
    data = tmp_path / "test.tsv"
    data.write_text(f"{text}\t{Transducer.load(run).document(text).text}\n")
    exact, _ = evaluate(run, [data], ["metrics=[exact]", "split=sentences"])
    assert exact.value == 100
