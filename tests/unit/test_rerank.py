"""Answers that other models have a say in, and models that write from right to left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_language import LANGUAGE, saved

from transduce.bundle import Bundle, BundleBlueprint
from transduce.problem import Problem
from transduce.recipe.use import asked, evaluate, predict, stream
from transduce.rerank import Asked, Witness, rerank
from transduce.result import Result
from transduce.search import Beam, Greedy, Sample
from transduce.search.constrain import ForbiddenBlueprint, Own
from transduce.text.codec import CodecBlueprint, TextBlueprint, TextCodec, learn_codecs
from transduce.text.tokenise import SentencePieceBlueprint
from transduce.train.progress import Show
from transduce.transducer import Transducer

TEXTS = ["abc", "", "dab", "bcd"]
SHOW = Show(quiet=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    saved(folder / "run", tiny.MODELS["recurrent"])
    saved(folder / "second", tiny.MODELS["transformer"], seed=1)
    saved(folder / "channel", tiny.MODELS["mixed"], seed=2)
    saved(folder / "language", LANGUAGE, seed=3)
    return folder


def load(runs: Path, name: str) -> Transducer:
    return Transducer.load(runs / name)


def test_an_answer_scores_what_all_models_say(runs: Path) -> None:
    asked: dict[str, Asked] = {"second": "answer", "channel": "source", "language": "text"}
    model = load(runs, "run")
    witnesses = [
        Witness(load(runs, name), about, weight)
        for (name, about), weight in zip(asked.items(), (0.5, 2.0, 1.5), strict=True)
    ]
    results = model(TEXTS, Beam(width=6), alternatives=5)
    changed = 0
    for before, after in zip(results, rerank(results, witnesses), strict=True):
        if not before.alternatives:
            assert after == before
            continue
        candidates = [before, *before.alternatives]
        ranked = [after, *after.alternatives]
        assert sorted(x.text for x in ranked) == sorted({x.text for x in candidates})
        order = [(not x.finished, -x.score) for x in ranked]
        assert order == sorted(order)
        for answer in ranked:
            pairs = [(before.source, answer.text), (answer.text, before.source), ("", answer.text)]
            wanted = answer.log_prob / len(answer.tokens)
            for witness, (source, target) in zip(witnesses, pairs, strict=True):
                tokens = witness.model.force([source], [target])[0]
                mean = sum(token.log_prob for token in tokens) / len(tokens)
                wanted += witness.weight * mean
            assert answer.score == pytest.approx(wanted, abs=1e-4)
        changed += after.text != before.text
    assert changed, "nobody had a say"


def test_of_answers_with_one_text_the_finished_one_stays() -> None:
    def one(text: str, finished: bool, log_prob: float) -> Result:
        return Result("a", text, log_prob, log_prob, finished, ())

    cut, done, other = one("x", False, -1.0), one("x", True, -2.0), one("y", True, -3.0)
    result = Result("a", "x", -1.0, -1.0, False, (), alternatives=(done, other))
    (best,) = rerank([result], [])
    assert [(x.text, x.finished) for x in (best, *best.alternatives)] == [("x", True), ("y", True)]
    assert cut.text == best.text


def test_it_is_a_setting(runs: Path, tmp_path: Path) -> None:
    change = f"rerank={{candidates: 6, language: {{run: {runs}/language, weight: 3}}}}"
    results = load(runs, "run")(TEXTS, alternatives=5)
    wanted = rerank(results, [Witness(load(runs, "language"), "text", 3.0)])
    assert list(predict(runs / "run", TEXTS, [change], show=SHOW)) == [x.text for x in wanted]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{x.source}\t{x.text}\n" for x in wanted if x.text))
    exact, *_ = evaluate(runs / "run", [pairs], [change, "metrics=[exact]"])
    assert exact.value == 100.0
    several = list(predict(runs / "run", ["abc"], [change], best=2, show=SHOW))
    assert len(several) == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("rerank={candidates: 4}", "nobody is asked"),
        (
            "rerank={language: {run: RUNS/second}}",
            r"rerank\.language\.run: .*name a language model",
        ),
        ("rerank={channel: {run: RUNS/language}}", r"rerank\.channel\.run: .*that has an encoder"),
        ("rerank={candidates: 2, channel: {run: RUNS/channel}}", "3 answers are wanted of 2"),
        ("rerank={channel: {run: RUNS/channel}} risk={}", "risk and rerank each choose an answer"),
        ("risk.weights=posterior search=sample", r"risk\.weights: sample draws an answer as often"),
    ],
)
def test_what_makes_no_sense_is_refused(runs: Path, change: str, what: str) -> None:
    changes = change.replace("RUNS", str(runs)).replace("} risk", "}\nrisk")
    changes = changes.replace(" search=", "\nsearch=")
    with pytest.raises(Problem, match=what):
        list(predict(runs / "run", ["abc"], changes.split("\n"), best=3, show=SHOW))


def test_all_models_that_have_a_say_compute_in_one_precision(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[str] = []

    def note(_: object, precision: str = "fp32") -> None:
        packed.append(precision)

    for module in ("transducer", "recipe.use"):
        monkeypatch.setattr(f"transduce.{module}.pack", note)
    witnesses = {"second": "[{run: RUNS/second}]", "channel": "{run: RUNS/channel}"}
    witnesses["language"] = "{run: RUNS/language}"
    asks = ", ".join(f"{name}: {model}" for name, model in witnesses.items())
    beside = ["drafter=RUNS/second", "fusion={run: RUNS/language}", f"rerank={{{asks}}}"]
    changes = ["precision=bf16", "search=speculative", "ensemble.runs=[RUNS/second]", *beside]
    changes = [change.replace("RUNS", str(runs)) for change in changes]
    model, setting = asked(runs / "run", changes, ())
    assert packed == ["fp32", "bf16", "bf16", "bf16", "bf16"]
    setting.answering(model)
    assert packed[5:] == ["bf16", "bf16", "bf16"]


def test_samples_are_weighed_by_how_often_they_were_drawn(runs: Path) -> None:
    changes = ["search={kind: sample, seed: 3}", "risk={metric: exact, candidates: 30}"]
    (answer,) = predict(runs / "run", ["abc"], changes, show=SHOW)
    drawn = load(runs, "run")("abc", Sample(samples=30, seed=3))
    texts = [drawn.text] if drawn.finished else []
    drawn = load(runs, "run")("abc", Sample(samples=30, seed=3), alternatives=29)
    texts = [one.text for one in (drawn, *drawn.alternatives) if one.finished]
    assert texts.count(answer) == max(map(texts.count, texts))


def test_what_compares_whole_answers_cannot_be_streamed(runs: Path) -> None:
    change = f"rerank={{language: {{run: {runs}/language}}}}"
    with pytest.raises(Problem, match=r"^rerank: it is about whole answers"):
        list(stream(runs / "run", ["abc"], ["search=greedy", change], show=SHOW))


def test_a_stream_names_answers_that_constraints_left_blank(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["search=greedy", "constraints=[{kind: required, phrases: [aaaaaa]}]"]
    changes += ["length.most=3"]
    assert "".join(stream(runs / "run", ["abc"], changes, show=Show())) == "\n"
    said = capsys.readouterr().err
    assert "warning: 1 answers are blank: the constraints allow none" in said
    assert "reached the length limit" not in said


def codec(reverse: bool, tokens: Any = "characters") -> TextCodec:
    facts = {"tokens": tokens, "reverse": reverse}
    return TextCodec.learn(CodecBlueprint.model_validate(facts), tiny.TARGETS * 20)


@pytest.mark.parametrize("tokens", ["characters", "bytes", SentencePieceBlueprint(size=270)])
def test_a_reversed_text_is_written_from_its_end_and_read_as_it_was(tokens: Any) -> None:
    plain, turned = codec(False, tokens), codec(True, tokens)
    for text in [*tiny.TARGETS, "cba ad", ""]:
        assert turned.encode(text) == plain.encode(text)[::-1]
        assert turned.decode(turned.encode(text)) == plain.decode(plain.encode(text))
        assert turned.alternatives(text, 1, 0) == [turned.encode(text)]


def test_only_a_reversed_codec_says_so(tmp_path: Path) -> None:
    plain, turned = codec(False), codec(True)
    assert plain.fingerprint != turned.fingerprint
    plain.save(tmp_path, "plain")
    turned.save(tmp_path, "turned")
    assert "reverse" not in (tmp_path / "plain.json").read_text()
    assert TextCodec.load(tmp_path, "turned").blueprint.reverse
    assert TextCodec.load(tmp_path, "plain").fingerprint == plain.fingerprint


def test_a_model_that_writes_from_right_to_left() -> None:
    facts = {"source": {"tokens": "characters"}}
    target = {"tokens": "characters", "reverse": True}
    text = TextBlueprint.model_validate(facts | {"target": target})
    codecs = learn_codecs(text, tiny.SOURCES, tiny.TARGETS)
    parts = {"model": tiny.MODELS["recurrent"], "search": "greedy", "longest": (1.0, 4)}
    torch.manual_seed(2)
    bundle = Bundle.make(BundleBlueprint.model_validate(parts), codecs)
    model = Transducer(bundle, torch.device("cpu"))
    answer = model("abc")
    said = [token.piece for token in answer.tokens if token.piece not in ("</s>", "<unk>", "<s>")]
    assert answer.text.replace("⁇", "") == "".join(said[::-1])
    alone = parts | {"model": LANGUAGE, "joint": True}
    both = {"source": codecs["target"], "target": codecs["target"]}
    language = Transducer(Bundle.make(BundleBlueprint.model_validate(alone), both))
    assert language.force([""], ["abc"])[0][0].piece == "c"
    with pytest.raises(Problem, match="goes on with no beginning"):
        language("abc")
    with pytest.raises(Problem, match="its end comes first"):
        list(model.stream("abc", Greedy()))
    with pytest.raises(Problem, match=r"^constraints: it is for texts from left to right"):
        model("abc", constraints=[ForbiddenBlueprint(phrases=("a",))])
    with pytest.raises(Problem, match=r"^own: it is for texts from left to right"):
        model(["abc"], own=[Own(prefix="a")])
