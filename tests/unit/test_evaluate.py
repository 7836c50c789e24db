from __future__ import annotations

import dataclasses
import math
import sys

import jiwer
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer  # type: ignore[import-untyped]

from transduce.blueprint import Blueprint
from transduce.evaluate import (
    BleuBlueprint,
    CharacterErrorRateBlueprint,
    ChrfBlueprint,
    ExactMatchBlueprint,
    Metric,
    MetricBlueprint,
    PhoneErrorRateBlueprint,
    RougeBlueprint,
    SequenceErrorBlueprint,
    TerBlueprint,
    WordErrorRateBlueprint,
    compare,
    evaluate,
    perplexity,
    perplexity_score,
)
from transduce.problem import Problem

REFERENCES = [
    ["The Eagle is a cheap coffee shop near Burger King.", "Near Burger King: The Eagle, cheap."],
    ["Zizzi is a pub.", "There is a pub called Zizzi.", "Zizzi, a pub"],
    ["A low rated English restaurant, The Mill, is by the river."],
    ["Blue Spice serves wine and cheese."],
]
HYPOTHESES = [
    "The Eagle is a coffee shop near Burger King.",
    "There is a pub named Zizzi.",
    "The Mill is an English restaurant by the river with a low rating.",
    "Blue Spice serves wine and cheese.",
]
WORSE = ["The Eagle is cheap.", "Zizzi.", "by the river restaurant The Mill", "Spice cheese wine"]
STREAMS = [[row[i] if i < len(row) else None for row in REFERENCES] for i in range(3)]
ONE_STREAM = [[row[0] for row in REFERENCES]]
KINDS = ("bleu", "chrf", "ter", "rouge", "wer", "cer", "per", "exact", "sequence_error")


def corpus_score(metric: Metric, hypotheses: list[str], references: list[list[str]]) -> float:
    return evaluate([metric], hypotheses, references, bootstrap=0)[0].value


class Plan(Blueprint):
    metrics: tuple[MetricBlueprint, ...]


def every_metric() -> list[Metric]:
    plan = Plan.model_validate({"metrics": [{"kind": kind} for kind in KINDS]})
    return [blueprint.build() for blueprint in plan.metrics]


def test_the_slot_holds_every_metric() -> None:
    assert set(MetricBlueprint.choices()) == set(KINDS)
    assert len({metric.name for metric in every_metric()}) == len(KINDS)


@pytest.mark.parametrize(
    ("blueprint", "oracle"),
    [
        (BleuBlueprint(), sacrebleu.BLEU()),
        (BleuBlueprint(lowercase=True), sacrebleu.BLEU(lowercase=True)),
        (BleuBlueprint(tokenize="char"), sacrebleu.BLEU(tokenize="char")),
        (
            BleuBlueprint(tokenize="zh", max_order=2),
            sacrebleu.BLEU(False, False, "zh", "exp", 0, 2),
        ),
        (ChrfBlueprint(), sacrebleu.CHRF()),
        (ChrfBlueprint(word_order=2), sacrebleu.CHRF(word_order=2)),
        (
            ChrfBlueprint(char_order=3, beta=1, whitespace=True),
            sacrebleu.CHRF(3, 0, 1, False, True),
        ),
        (TerBlueprint(), sacrebleu.TER()),
        (
            TerBlueprint(normalized=True, case_sensitive=True),
            sacrebleu.TER(True, False, False, True),
        ),
        (TerBlueprint(no_punct=True), sacrebleu.TER(no_punct=True)),
    ],
)
@pytest.mark.parametrize("hypotheses", [HYPOTHESES, WORSE, ["我爱北京", "", "x", "我 爱 Zizzi"]])
def test_sacrebleu_agrees(
    blueprint: MetricBlueprint,
    oracle: sacrebleu.BLEU | sacrebleu.CHRF | sacrebleu.TER,
    hypotheses: list[str],
) -> None:
    metric = blueprint.build()
    expected = oracle.corpus_score(hypotheses, STREAMS)  # type: ignore[arg-type]
    assert corpus_score(metric, hypotheses, REFERENCES) == pytest.approx(expected.score, abs=1e-9)
    assert metric.signature(REFERENCES) == oracle.get_signature().format()
    assert "nrefs:var" in metric.signature(REFERENCES)

    single = [row[:1] for row in REFERENCES]
    expected = oracle.corpus_score(hypotheses, ONE_STREAM)
    assert corpus_score(metric, hypotheses, single) == pytest.approx(expected.score, abs=1e-9)
    assert metric.signature(single) == oracle.get_signature().format()
    assert metric.higher_is_better == (not isinstance(oracle, sacrebleu.TER))
    if blueprint != BleuBlueprint(tokenize="zh", max_order=2):  # sacrebleu says BLEU to any order
        assert metric.name == expected.name


@given(
    st.lists(
        st.tuples(st.text("ab .", max_size=8), st.lists(st.text("ab .", max_size=8), min_size=1)),
        min_size=1,
    )
)
@settings(max_examples=50, deadline=None)
def test_sacrebleu_agrees_on_any_text(corpus: list[tuple[str, list[str]]]) -> None:
    hypotheses = [text for text, _ in corpus]
    references = [segment for _, segment in corpus]
    most = max(map(len, references))
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    for blueprint, oracle in (
        (BleuBlueprint(), sacrebleu.BLEU()),
        (ChrfBlueprint(), sacrebleu.CHRF()),
        (TerBlueprint(), sacrebleu.TER()),
    ):
        expected = oracle.corpus_score(hypotheses, streams).score  # type: ignore[arg-type]
        found = corpus_score(blueprint.build(), hypotheses, references)
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("hypotheses", [HYPOTHESES, WORSE])
def test_jiwer_agrees(hypotheses: list[str]) -> None:
    single = [row[:1] for row in REFERENCES]
    plain = [row[0] for row in REFERENCES]
    word, character = WordErrorRateBlueprint().build(), CharacterErrorRateBlueprint().build()
    expected = 100 * jiwer.wer(plain, hypotheses)
    assert corpus_score(word, hypotheses, single) == pytest.approx(expected, abs=1e-9)
    expected = 100 * jiwer.cer(plain, hypotheses)
    assert corpus_score(character, hypotheses, single) == pytest.approx(expected, abs=1e-9)
    lowered = WordErrorRateBlueprint(lowercase=True).build()
    expected = 100 * jiwer.wer([text.lower() for text in plain], [t.lower() for t in hypotheses])
    assert corpus_score(lowered, hypotheses, single) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("variant", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
@pytest.mark.parametrize("stem", [False, True])
def test_rouge_score_agrees(variant: str, stem: bool) -> None:
    oracle = rouge_scorer.RougeScorer([variant], use_stemmer=stem)
    expected = np.mean(
        [
            oracle.score_multi(refs, text)[variant].fmeasure
            for text, refs in zip(HYPOTHESES, REFERENCES, strict=True)
        ]
    )
    blueprint = RougeBlueprint.model_validate(
        {"variant": variant, "tokenize": "stem" if stem else "ascii"}
    )
    found = corpus_score(blueprint.build(), HYPOTHESES, REFERENCES)
    assert found == pytest.approx(100 * expected, abs=1e-9)


def test_rouge_of_text_that_its_tokeniser_cannot_see() -> None:
    chinese = ["我爱北京天安门"], [["我爱北京"]]
    with pytest.raises(Problem, match="tokenize: space or character"):
        evaluate([RougeBlueprint().build()], *chinese)
    by_character = RougeBlueprint(tokenize="character").build()
    assert corpus_score(by_character, *chinese) == pytest.approx(100 * 2 * (4 / 7) / (4 / 7 + 1))
    by_space = RougeBlueprint(tokenize="space", variant="rouge1").build()
    assert corpus_score(by_space, ["a B c"], [["a b c d"]]) == pytest.approx(100 * 4 / 7)


@pytest.mark.parametrize(
    ("text", "references", "edits", "length"),
    [
        ("a b c", ["a b c"], 0, 3),
        ("a x c", ["a b c"], 1, 3),
        ("a c", ["a b c"], 1, 3),
        ("a b c d", ["a b c"], 1, 3),
        ("b a", ["a b"], 2, 2),
        ("", ["a b"], 2, 2),
        ("a b", [""], 2, 0),
        ("", [""], 0, 0),
        ("a b c", ["x y z", "a b d", "a b c d e"], 1, 3),  # the fewest edits
        ("a b c", ["a b", "a b c d", "a c"], 1, 4),  # of the closest, the longest
        ("a b c", ["", "q r s t"], 3, 0),  # even where that has no length
    ],
)
def test_edits_by_hand(text: str, references: list[str], edits: int, length: int) -> None:
    for metric in (WordErrorRateBlueprint().build(), PhoneErrorRateBlueprint().build()):
        for order in (references, references[::-1]):
            assert metric.statistics([text], [order]).tolist() == [[edits, length]]
    characters = CharacterErrorRateBlueprint().build()
    joined = [reference.replace(" ", "") for reference in references]
    found = characters.statistics([text.replace(" ", "")], [joined])
    assert found.tolist() == [[edits, length]]


def test_error_rates_of_a_corpus_by_hand() -> None:
    metric = PhoneErrorRateBlueprint().build()
    found = corpus_score(metric, ["K AE1 T", "D AO1 G Z", ""], [["K AE1 T"], ["D AO1 G"], ["AH0"]])
    assert found == pytest.approx(100 * 2 / 7)
    assert metric.score(np.array([0.0, 0.0])) == 0
    assert metric.score(np.array([3.0, 0.0])) == 100
    inner_space = CharacterErrorRateBlueprint().build()
    assert corpus_score(inner_space, [" ab "], [["a b"]]) == pytest.approx(100 / 3)


def test_whole_outputs_by_hand() -> None:
    hypotheses = ["K AE1 T", "D  AO1 G ", "HH AY1", "hh ay1"]
    references = [["K AE1 T", "K AA1 T"], ["D AO1 G"], ["HH AH0", "HH"], ["HH AY1"]]
    exact, error = ExactMatchBlueprint().build(), SequenceErrorBlueprint().build()
    assert corpus_score(exact, hypotheses, references) == 50
    assert corpus_score(error, hypotheses, references) == 50
    assert corpus_score(exact, hypotheses[:3], references[:3]) == pytest.approx(200 / 3)
    assert corpus_score(error, hypotheses[:3], references[:3]) == pytest.approx(100 / 3)
    assert corpus_score(ExactMatchBlueprint(lowercase=True).build(), hypotheses, references) == 75
    assert exact.higher_is_better
    assert not error.higher_is_better


def test_what_cannot_be_scored_is_a_problem() -> None:
    for metric in every_metric():
        with pytest.raises(Problem, match="4 hypotheses, but references for 3 segments"):
            metric.statistics(HYPOTHESES, REFERENCES[:3])
        with pytest.raises(Problem, match="segment 2 has no reference"):
            metric.statistics(["a", "b"], [["a"], []])
        with pytest.raises(Problem, match="segment 1: its references are a string"):
            metric.statistics(["a"], ["a"])
        with pytest.raises(Problem, match="no segment to score"):
            metric.statistics([], [])


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rouge_score.rouge_scorer", "rouge_score.tokenizers"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Problem, match=r"pip install 'transduce\[metrics\]'"):
        RougeBlueprint().build()


def test_every_metric_takes_any_number_of_references() -> None:
    for metric in every_metric():
        statistics = metric.statistics(HYPOTHESES, REFERENCES)
        assert statistics.shape[0] == len(HYPOTHESES)
        assert statistics.dtype == np.float64
        alone = [metric.statistics(HYPOTHESES[i : i + 1], REFERENCES[i : i + 1]) for i in range(4)]
        np.testing.assert_array_equal(statistics, np.concatenate(alone))
        good, bad = metric.score(statistics.sum(0)), corpus_score(metric, WORSE, REFERENCES)
        assert (good > bad) == metric.higher_is_better


def test_scores_carry_interval_and_signature() -> None:
    scores = evaluate(every_metric(), HYPOTHESES, REFERENCES, bootstrap=200, seed=7)
    for score in scores:
        assert score.low is not None
        assert score.high is not None
        assert score.low <= score.value <= score.high
        assert "bs:200|seed:7|" in score.signature
        assert score.segments == 4
    again = evaluate(every_metric(), HYPOTHESES, REFERENCES, bootstrap=200, seed=7)
    assert scores == again
    assert str(scores[0]).startswith(f"BLEU {scores[0].value:.1f} [{scores[0].low:.1f}, ")
    assert str(scores[0]).endswith(scores[0].signature)


def test_no_resamples_no_interval() -> None:
    score = evaluate([BleuBlueprint().build()], HYPOTHESES, REFERENCES, bootstrap=0)[0]
    assert score.low is score.high is None
    assert "bs:" not in score.signature
    assert str(score) == f"BLEU {score.value:.1f} {score.signature}"
    assert dataclasses.asdict(score)["name"] == "BLEU"


def test_the_interval_covers_what_it_promises() -> None:
    """A share of 70 % over 400 segments: the normal approximation is good to half a point."""
    references = [["x"]] * 400
    hypotheses = ["x" if i % 10 < 7 else "y" for i in range(400)]
    exact = evaluate([ExactMatchBlueprint().build()], hypotheses, references, bootstrap=2000)[0]
    half = 100 * 1.96 * math.sqrt(0.7 * 0.3 / 400)
    assert exact.low == pytest.approx(70 - half, abs=0.6)
    assert exact.high == pytest.approx(70 + half, abs=0.6)


def test_the_interval_is_as_wide_as_sacrebleus() -> None:
    hypotheses, references = HYPOTHESES * 50, REFERENCES * 50
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(3)]
    shown = sacrebleu.BLEU().corpus_score(hypotheses, streams, n_bootstrap=1000)  # type: ignore[arg-type]
    half = float(shown.format(width=6).split("± ")[1].split(")")[0])
    ours = evaluate([BleuBlueprint().build()], hypotheses, references, bootstrap=1000)[0]
    assert ours.low is not None
    assert ours.high is not None
    assert (ours.high - ours.low) / 2 == pytest.approx(half, rel=0.05)


def test_comparison() -> None:
    metrics = [BleuBlueprint().build(), TerBlueprint().build()]
    many = HYPOTHESES * 10, WORSE * 10, REFERENCES * 10
    better, edits = compare(metrics, *many, bootstrap=300)
    assert better.p < 0.01
    assert better.difference == pytest.approx(better.value - better.baseline)
    assert 0 < better.low < better.difference < better.high
    assert edits.difference < 0  # fewer edits
    same = compare(metrics, many[0], many[0], many[2], bootstrap=300)[0]
    assert same.p == 1
    assert same.low == same.difference == same.high == 0
    assert f"= {better.difference:+.1f} [" in str(better)
    with pytest.raises(Problem, match="needs resamples"):
        compare(metrics, *many, bootstrap=0)


def test_chance_is_not_mistaken_for_a_difference() -> None:
    """Two systems that are right half the time, at random, rarely differ significantly."""
    generator = np.random.default_rng(0)
    references = [["x"]] * 200
    low = 0
    for _ in range(100):
        ours, theirs = ([("y", "x")[i] for i in generator.integers(2, size=200)] for _ in range(2))
        low += compare([ExactMatchBlueprint().build()], ours, theirs, references, 100)[0].p < 0.05
    assert low <= 12  # 5 expected


def test_perplexity() -> None:
    assert perplexity(10 * math.log(7), 10) == pytest.approx(7)
    assert perplexity(1e6, 1) == math.inf
    with pytest.raises(Problem, match="at least one token"):
        perplexity(0.0, 0)
    tokens = np.array([3.0, 5.0, 2.0])
    score = perplexity_score(tokens * math.log(7), tokens, "character", bootstrap=50)
    assert score.value == pytest.approx(7)
    assert score.low == pytest.approx(7)
    assert not score.higher_is_better
    assert score.signature.startswith("bs:50|seed:12345|unit:character|transduce:")
    assert perplexity_score(tokens, tokens, "character", bootstrap=0).low is None
