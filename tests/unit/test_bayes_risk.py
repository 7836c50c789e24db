"""Minimum Bayes risk against a plain reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from sacrebleu import corpus_chrf, sentence_bleu, sentence_chrf

from transduce.bayes_risk import Weights, least_risk
from transduce.evaluate import (
    BleuBlueprint,
    CharacterErrorRateBlueprint,
    ChrfBlueprint,
    ExactMatchBlueprint,
    Metric,
    Utility,
)
from transduce.problem import Problem
from transduce.recipe.use import evaluate, predict
from transduce.result import Result
from transduce.search import Beam
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show

TEXTS = [
    "the cat sat",
    "the cat sat down",
    "a cat sat down",
    "dogs",
    "the cat is down",
    "the cat sat",
]
LOG_PROBS = [-1.5, -2.0, -2.2, -1.4, -2.1, -3.0]


def answer(finished: tuple[bool, ...] = (True,) * 6) -> Result:
    """Return six candidates, two of one text."""
    facts = zip(TEXTS, LOG_PROBS, finished, strict=True)
    first, *others = (Result("s", text, p, p, over, ()) for text, p, over in facts)
    return replace(first, alternatives=tuple(others), source_pieces=("s",), bound=-1.0)


def edits(a: str, b: str) -> int:
    """Return the edit distance of two texts."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


UTILITIES: dict[str, tuple[Metric | Utility, Callable[[str, str], float]]] = {
    "chrf": (ChrfBlueprint().build(), lambda h, r: sentence_chrf(h, [r]).score),
    "bleu": (BleuBlueprint().build(), lambda h, r: sentence_bleu(h, [r]).score),
    "cer": (CharacterErrorRateBlueprint().build(), lambda h, r: -100 * edits(h, r) / len(r)),
    "exact": (ExactMatchBlueprint().build(), lambda h, r: 100.0 * (h == r)),
    "function": (lambda h, r: float(h[0] == r[0]), lambda h, r: float(h[0] == r[0])),
}


@pytest.mark.parametrize("weights", ["posterior", "uniform"])
@pytest.mark.parametrize("name", UTILITIES)
@pytest.mark.parametrize("last", [True, False])
def test_it_is_the_reference(name: str, weights: Weights, last: bool) -> None:
    utility, plain = UTILITIES[name]
    finished = (True, True, True, True, last, last)
    found = least_risk(answer(finished), utility, weights)
    masses = [math.exp(p) if weights == "posterior" else 1.0 for p in LOG_PROBS]
    evidence = [
        (text, mass) for text, mass, over in zip(TEXTS, masses, finished, strict=True) if over
    ]
    total = sum(mass for _, mass in evidence)
    wanted = {
        text: sum(mass * plain(text, reference) for reference, mass in evidence) / total
        for text in TEXTS
    }
    every = [found, *found.alternatives]
    assert {one.text: one.score for one in every} == pytest.approx(wanted)
    assert len(every) == len(wanted) == 5
    order = [(one.finished, one.score) for one in every]
    assert order == sorted(order, reverse=True)
    assert found.source_pieces == ("s",)
    assert all(one.bound is None for one in every)
    best_of = dict(zip(reversed(TEXTS), reversed(LOG_PROBS), strict=True))
    assert {one.text: one.log_prob for one in every} == best_of


def test_the_likeliest_need_not_be_the_best() -> None:
    assert max(zip(LOG_PROBS, TEXTS, strict=True))[1] == "dogs"
    assert "cat" in least_risk(answer(), UTILITIES["chrf"][0]).text
    assert least_risk(answer(), UTILITIES["exact"][0]).text == "the cat sat"


def test_there_may_be_nothing_to_choose_from() -> None:
    one = Result("s", "", -math.inf, -math.inf, False, ())
    assert least_risk(one, UTILITIES["chrf"][0]) is one
    none_finished = least_risk(answer((False,) * 6), UTILITIES["exact"][0])
    assert none_finished.text == "the cat sat"


def test_lines_are_answered_by_the_least_risk(tmp_path: Path) -> None:
    made = tiny.bundle(tiny.MODELS["recurrent"])
    made.save(tmp_path / "model", tensors(made.model), "a card")
    model, texts = tiny.transducer(tiny.MODELS["recurrent"]), ["abc", "", "dab", "a cab"]
    changes = ["risk.metric=chrf", "risk.candidates=6"]
    rows = list(predict(tmp_path, texts, changes, scores=True, best=3, show=Show(quiet=True)))
    at = 0
    for number, result in enumerate(model(texts, Beam(), alternatives=5), 1):
        best = least_risk(result, ChrfBlueprint().build())
        for one in (best, *best.alternatives[:2]):
            line, score, text = rows[at].split("\t")
            assert (line, text) == (str(number), one.text)
            assert float(score) == pytest.approx(one.score, abs=1e-2)
            at += 1
    assert at == len(rows) == 10
    (tmp_path / "test.tsv").write_text("abc\tcba\ndab\tbad\n", encoding="utf-8")
    chrf = evaluate(tmp_path, [tmp_path / "test.tsv"], changes)[1]
    answers = [rows[0].split("\t")[2], rows[4].split("\t")[2]]
    assert chrf.value == pytest.approx(corpus_chrf(answers, [["cba", "bad"]]).score)
    with pytest.raises(Problem, match=r"risk\.candidates: 7 answers are wanted of 6"):
        list(predict(tmp_path, texts, changes, best=7, show=Show(quiet=True)))
    with pytest.raises(Problem, match="one answer only"):
        list(predict(tmp_path, texts, [*changes, "search.kind=greedy"], show=Show(quiet=True)))
