"""The front door: what goes in, what comes out, in which order, and what is known of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from transduce.experiment import Experiment
from transduce.nn.tap import watch
from transduce.problem import Problem
from transduce.result import Result, Token
from transduce.search import BankedBeam, Beam, Draft, Exact, Greedy, Length, SearchBlueprint
from transduce.text.vocabulary import EOS, SPECIALS
from transduce.train.checkpoint import tensors
from transduce.transducer import Transducer

TEXTS = ["abc", "bcd", "", "dab", "never seen: ξ", " \t", "a cab", "ä <b> &", "abcd" * 5]


@pytest.fixture(scope="module", params=tiny.MODELS)
def model(request: pytest.FixtureRequest) -> Transducer:
    return tiny.transducer(tiny.MODELS[request.param])


def test_a_text_has_an_answer_and_a_list_has_answers_in_its_order(model: Transducer) -> None:
    answers = model(TEXTS)
    assert [answer.source for answer in answers] == TEXTS
    assert [str(answer) for answer in answers] == [answer.text for answer in answers]
    for text, answer in zip(TEXTS, answers, strict=True):
        alone = model(text)
        assert isinstance(alone, Result)
        assert (alone.source, alone.text) == (text, answer.text)
        assert alone.log_prob == pytest.approx(answer.log_prob, abs=1e-4)
    assert [answer.text for answer in model(tuple(TEXTS))] == [answer.text for answer in answers]
    assert len({answer.text for answer in answers}) > 2, "this model tells texts apart"
    assert model([]) == []


def test_a_blank_text_has_a_blank_answer(model: Transducer) -> None:
    for blank in ("", " ", "\t \u3000"):
        answer = model(blank, alternatives=2, attention=True)
        assert answer == Result(blank, "", 0.0, 0.0, finished=True, tokens=())


def test_probabilities_of_tokens_make_the_probability_of_the_answer(model: Transducer) -> None:
    for answer in itertools.chain(model(TEXTS), model(TEXTS, Greedy())):
        assert all(0 <= token.probability <= 1 for token in answer.tokens)
        logs = [token.log_prob for token in answer.tokens]
        assert logs == pytest.approx([math.log(token.probability) for token in answer.tokens])
        assert sum(logs) == pytest.approx(answer.log_prob, abs=1e-4)
        shown = [token.piece for token in answer.tokens if token.piece not in SPECIALS]
        assert "".join(shown) == answer.text
        assert (answer.finished and bool(answer.tokens)) == any(
            token.piece == "</s>" for token in answer.tokens
        )


def test_a_search_ranks_by_its_own_score(model: Transducer) -> None:
    for answer in model(TEXTS, Greedy()):
        assert answer.score == answer.log_prob
    for answer in model(TEXTS, Beam(width=3)):
        assert answer.score == pytest.approx(answer.log_prob / max(1, len(answer.tokens)))


def test_given_answers_are_as_likely_as_found_ones(model: Transducer) -> None:
    found = [answer for answer in model(TEXTS) if answer.tokens and answer.finished]
    assert len(found) > 2
    forced = model.force([answer.source for answer in found], [answer.text for answer in found])
    for answer, tokens in zip(found, forced, strict=True):
        assert [token.piece for token in tokens] == [token.piece for token in answer.tokens]
        wanted = [token.log_prob for token in answer.tokens]
        assert [token.log_prob for token in tokens] == pytest.approx(wanted, abs=1e-4)


def test_alternatives_are_the_next_best_and_all_different(model: Transducer) -> None:
    for plain, answer in zip(model(TEXTS), model(TEXTS, alternatives=3), strict=True):
        ranked = [answer, *answer.alternatives]
        assert (answer.text, answer.score) == (plain.text, plain.score)
        assert plain.alternatives == ()
        if answer.source.strip():
            assert len(ranked) == 4
        order = [(other.finished, other.score) for other in ranked]
        assert order == sorted(order, reverse=True)
        assert len({other.tokens for other in ranked}) == len(ranked)
        assert len({other.text for other in ranked}) == len(ranked)
        for other in answer.alternatives:
            assert other.source == answer.source
            assert sum(token.log_prob for token in other.tokens) == pytest.approx(
                other.log_prob, abs=1e-4
            )


def test_more_alternatives_than_the_beam_is_wide_widen_it(model: Transducer) -> None:
    answer = model("abc", Beam(width=2), alternatives=6)
    assert len(answer.alternatives) == 6
    hasty = model("abc", Beam(width=4, patience=0.5), alternatives=3)
    assert len(hasty.alternatives) == 3
    for search in (Beam(n_best=3), BankedBeam(n_best=3), Exact(n_best=3)):
        assert search.with_answers(2) == search


def test_greedy_search_has_no_alternatives(model: Transducer) -> None:
    with pytest.raises(Problem, match="for alternatives use beam search"):
        model("abc", Greedy(), alternatives=1)
    with pytest.raises(Problem, match="for alternatives use beam search"):
        next(model.predict(["abc"], Greedy(), alternatives=1))


def test_an_answer_that_the_limit_cut_off_says_so() -> None:
    wordy = tiny.bundle(tiny.MODELS["transformer"], longest=(0.5, 1))
    with torch.no_grad():
        wordy.model.head.get_parameter("bias")[EOS] -= 4.0
    cut = Transducer(wordy)
    answers = cut(TEXTS, alternatives=1)
    assert not all(answer.finished for answer in answers)
    for answer in answers:
        most = math.ceil(0.5 * (len(answer.source) + 1)) + 1  # with the symbol for the end
        for other in (answer, *answer.alternatives):
            assert len(other.tokens) <= most
            if other.tokens:
                assert other.finished == (other.tokens[-1].piece == "</s>")


def test_attention_is_a_distribution_over_the_pieces_of_the_source(model: Transducer) -> None:
    plain = model(TEXTS)
    for answer, unwatched in zip(model(TEXTS, attention=True), plain, strict=True):
        assert (answer.text, answer.tokens) == (unwatched.text, unwatched.tokens)
        assert unwatched.attention is None
        if answer.source.strip():
            assert answer.source_pieces[-1] == "</s>"
            assert answer.attention is not None
            assert answer.attention.shape == (len(answer.tokens), len(answer.source_pieces))
            assert (answer.attention >= 0).all()
            np.testing.assert_allclose(answer.attention.sum(1), 1, atol=1e-5)


def test_attention_is_where_the_model_looked_when_it_chose_each_token(model: Transducer) -> None:
    for text in ("abc", "a cab"):
        with watch(model.model, "source attention") as seen:
            answer = model(text, Greedy())
        steps = [torch.cat(weights, -2)[0] for weights in seen.values()]
        looked = torch.stack([w if w.dim() == 2 else w.mean(0) for w in steps]).mean(0)
        shown = model(text, Greedy(), attention=True).attention
        assert shown is not None
        np.testing.assert_allclose(shown, looked[: len(answer.tokens)].numpy(), atol=1e-5)


def test_attention_to_a_text_does_not_depend_on_the_other_texts(model: Transducer) -> None:
    together = model(TEXTS, attention=True)
    for text, answer in zip(TEXTS, together, strict=True):
        alone = model(text, attention=True).attention
        if alone is not None and answer.attention is not None:
            np.testing.assert_allclose(alone, answer.attention, atol=1e-4)
        else:
            assert not text.strip()


def test_without_attention_there_is_none_to_show() -> None:
    fixed = tiny.transducer(tiny.FIXED)
    assert [answer.attention for answer in fixed(TEXTS, attention=True)] == [None] * len(TEXTS)
    assert [answer.text for answer in fixed(TEXTS, attention=True)] == [
        answer.text for answer in fixed(TEXTS)
    ]


def test_a_stream_is_answered_in_order_and_read_no_further_than_asked(model: Transducer) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for text in itertools.cycle(TEXTS):
            taken += 1
            yield text

    answers = model.predict(endless(), ahead=4)
    assert taken == 0
    first = next(answers)
    assert taken == 4
    rest = list(itertools.islice(answers, 3))
    assert taken == 4
    rest += itertools.islice(answers, 9)
    assert taken == 16
    sources = [answer.source for answer in (first, *rest)]
    assert sources == list(itertools.islice(itertools.cycle(TEXTS), 13))
    wanted = [answer.text for answer in model(sources)]
    assert [answer.text for answer in (first, *rest)] == wanted


def test_the_end_of_a_stream_is_the_end_of_its_answers(model: Transducer) -> None:
    assert [answer.source for answer in model.predict(TEXTS, ahead=4)] == TEXTS
    assert list(model.predict([])) == []


def test_answering_changes_nothing_in_the_model(model: Transducer) -> None:
    before = {name: value.clone() for name, value in tensors(model.model).items()}
    state = torch.get_rng_state()
    first = model("abc", alternatives=2, attention=True).tokens
    assert model("abc").tokens == first
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in tensors(model.model).items())


class Reader(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_the_answer_and_runs_nothing_in_it() -> None:
    text = "<script>alert('&amp;')</script><img src=x onerror=y>"
    tokens = (Token(text, -0.7), Token("</s>", -0.001))
    shown = Result("source", text, -0.35, -0.7, finished=True, tokens=tokens)._repr_html_()
    reader = Reader()
    reader.feed(shown)
    assert reader.tags == {"div", "b", "br", "small", "span"}
    assert reader.text.count(text) == 2
    assert "</s>" in reader.text
    assert "-0.70" in reader.text


def test_a_run_is_loaded_by_its_folder_or_by_that_of_its_model(tmp_path: Path) -> None:
    made = tiny.bundle(tiny.MODELS["recurrent"])
    made.save(tmp_path / "run" / "model", tensors(made.model), "card")
    wanted = Transducer(made, torch.device("cpu"))(TEXTS)
    for folder in (tmp_path / "run", str(tmp_path / "run" / "model")):
        found = Transducer.load(folder, device="cpu")(TEXTS)
        assert [result.text for result in found] == [result.text for result in wanted]
        scores = [result.score for result in wanted]
        assert [result.score for result in found] == pytest.approx(scores, abs=1e-5)


def test_a_model_can_be_looked_at() -> None:
    shown = repr(tiny.transducer(tiny.MODELS["mixed"]))
    assert shown.startswith("Transducer(transformer encoder, recurrent decoder, 0.0 M parameters")


def test_what_has_no_positions_is_refused_and_no_answer_runs_past_them() -> None:
    learned = {"positions": {"kind": "learned", "longest": 7}}
    parts = dict.fromkeys(("encoder", "decoder"), tiny.TRANSFORMER | learned)
    model = Transducer(tiny.bundle(parts))
    assert model.panel.limit(torch.tensor([1, 7]), model.length).tolist() == [7, 7]
    answers = model(["abc", "abcdab"])
    assert max(len(answer.tokens) for answer in answers) <= 7
    says = "the source has 8 symbols with its end, and this model has learned 7 positions; shorten"
    for ask in (
        lambda: model(["abc", "abcdabc"]),
        lambda: model.force(["abc", "abcdabc"], ["a", "b"]),
        lambda: list(model.predict(["abc", "abcdabc"], ahead=1)),
    ):
        with pytest.raises(Problem) as caught:
            ask()
        assert str(caught.value).startswith(f"text 2: {says}")
    with pytest.raises(Problem, match="text 1: the target has 8 symbols"):
        model.force(["abc"], ["abcdabc"])


@pytest.mark.parametrize("search", [None, Greedy()])
def test_models_keep_minimum_and_maximum(search: SearchBlueprint | None) -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    texts = ["abc", "bcd", "dab", "a cab"]
    free = [len(answer.tokens) for answer in model(texts, search)]
    model.length = Length(least=max(free))
    assert all(len(answer.tokens) >= max(free) for answer in model(texts, search))
    assert max(free) > 2
    model.length = Length(most=2)
    answers = model(texts, search)
    assert [len(answer.tokens) for answer in answers] == [min(2, size) for size in free]


@pytest.mark.parametrize("name", [*tiny.MODELS, "copying", "stepwise"])
def test_drafts_from_the_source_find_what_greedy_search_finds(name: str) -> None:
    others = {"copying": tiny.COPYING, "stepwise": tiny.STEPWISE}
    model = Transducer(tiny.bundle((tiny.MODELS | others)[name], joint=True), torch.device("cpu"))
    greedy = model(TEXTS, Greedy())
    for search in (Draft(), Draft(span=2, match=1)):
        for ours, theirs in zip(model(TEXTS, search), greedy, strict=True):
            assert (ours.text, ours.finished) == (theirs.text, theirs.finished)
            assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-4)


def watched(growing: Generator[str, None, bool]) -> tuple[list[str], bool]:
    """Return what is shown, and whether it has finished."""
    ends: list[bool] = []

    def watch() -> Iterator[str]:
        ends.append((yield from growing))

    return list(watch()), ends[0]


@pytest.mark.parametrize("name", [*tiny.MODELS, "copying"])
def test_an_answer_that_is_shown_as_it_grows_is_the_answer(name: str) -> None:
    model = Transducer(tiny.bundle((tiny.MODELS | {"copying": tiny.COPYING})[name], joint=True))
    for search in (Greedy(), Beam(width=1), Draft()):
        for text, whole in zip(TEXTS, model(TEXTS, search), strict=True):
            shown, finished = watched(model.stream(text, search))
            assert all(shown)
            assert ("".join(shown), finished) == (whole.text, whole.finished)
    with pytest.raises(Problem, match="beam: it decides on whole answers"):
        next(model.stream("abc"))
    with pytest.raises(Problem, match="beam"):
        next(model.stream("abc", Beam(width=5)))


def test_drafts_need_one_vocabulary() -> None:
    with pytest.raises(Problem, match="a vocabulary for each side; search greedily"):
        tiny.transducer(tiny.MODELS["mixed"])("abc", Draft())
    corpus = {"kind": "tsv", "path": "a.tsv"}
    facts = {"data": {"train": corpus, "dev": corpus}}
    for key, wish in (
        ("search", {"search": "draft"}),
        ("validation.search", {"validation": {"search": "draft"}}),
    ):
        with pytest.raises(ValueError, match=rf"{key}: draft takes .* set text.joint: true, or"):
            Experiment.model_validate({**facts, **wish})
        Experiment.model_validate({**facts, **wish, "text": {"joint": True}})


def test_a_minimum_beyond_what_positions_there_are_is_refused() -> None:
    learned = {"positions": {"kind": "learned", "longest": 7}}
    parts = dict.fromkeys(("encoder", "decoder"), tiny.TRANSFORMER | learned)
    model = Transducer(tiny.bundle(parts))
    model.length = Length(least=8)
    with pytest.raises(Problem, match=r"length.least: .* 8 symbols .* 7 positions; lower it"):
        model("abc")
