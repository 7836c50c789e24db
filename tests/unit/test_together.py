"""Models that answer together, from text to text."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from transduce.bundle import Bundle, BundleBlueprint
from transduce.problem import Problem
from transduce.search import Beam, Draft, Exact, Greedy, Length, Speculative
from transduce.search.constrain import ForbiddenBlueprint, Own
from transduce.text.codec import TextBlueprint, learn_codecs
from transduce.transducer import Transducer

TEXTS = ["abc", "", "dab", "a cab bcd", "ä"]


def member(
    model: dict[str, Any], tokens: str = "characters", target: str = "characters", seed: int = 0
) -> Transducer:
    """Make a random model whose source is cut as ``tokens`` says."""
    text = TextBlueprint.model_validate(
        {"source": {"tokens": tokens}, "target": {"tokens": target}}
    )
    codecs = learn_codecs(text, tiny.SOURCES, tiny.TARGETS)
    facts = {"model": model, "search": "beam", "longest": (1.0, 3)}
    torch.manual_seed(seed)
    made = Bundle.make(BundleBlueprint.model_validate(facts), codecs)
    return Transducer(made, torch.device("cpu"))


def test_members_read_a_text_each_in_its_own_way() -> None:
    first = member(tiny.MODELS["recurrent"])
    others = [member(tiny.MODELS["transformer"], "words"), member(tiny.STEPWISE, "bytes", seed=1)]
    together = first.ensemble(others)
    for text, answer in zip(TEXTS, together(TEXTS), strict=True):
        alone = together(text)
        assert alone.text == answer.text
        assert alone.log_prob == pytest.approx(answer.log_prob, abs=1e-4)
    target = ["cba", "x", "bad", "b", "ba"]
    said = [model.force(TEXTS, target) for model in (first, *others)]
    for row, mean in enumerate(together.force(TEXTS, target)):
        first_tokens = [tokens[row][0].probability for tokens in said]
        assert mean[0].probability == pytest.approx(sum(first_tokens) / 3, abs=1e-5)


def test_the_score_of_an_answer_is_its_forced_score() -> None:
    together = member(tiny.MODELS["recurrent"]).ensemble([member(tiny.MODELS["mixed"], "words")])
    compared = 0
    for search in (Greedy(), Beam(), Exact(nodes=100)):
        answers = [
            answer for answer in together(TEXTS, search) if answer.finished and answer.tokens
        ]
        forced = together.force([x.source for x in answers], [x.text for x in answers])
        for answer, tokens in zip(answers, forced, strict=True):
            if tuple(token.piece for token in tokens) == tuple(x.piece for x in answer.tokens):
                total = sum(token.log_prob for token in tokens)
                assert total == pytest.approx(answer.log_prob, abs=1e-4)
                compared += 1
    assert compared > 2


def test_twins_answer_as_one() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    for average in ("probabilities", "log_probabilities"):
        twins = model.ensemble([tiny.transducer(tiny.MODELS["recurrent"])], average)
        for ours, theirs in zip(twins(TEXTS), model(TEXTS), strict=True):
            assert ours.text == theirs.text
            assert ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_an_ensemble_keeps_what_was_set_of_the_first() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    model.length, model.search = Length(most=2), Greedy()
    together = model.ensemble([tiny.transducer(tiny.MODELS["mixed"])])
    assert (together.length, together.search) == (model.length, model.search)
    assert all(len(answer.tokens) <= 2 for answer in together(TEXTS))
    assert len(model.panel.bundles) == 1


def test_drafts_from_the_source_go_with_ensembles_and_constraints() -> None:
    model, other = (
        Transducer(tiny.bundle(tiny.MODELS[name], joint=True), torch.device("cpu"))
        for name in ("recurrent", "transformer")
    )
    together = model.ensemble([other])
    never, own = [ForbiddenBlueprint(phrases=("a",))], [Own(prefix="cb")] * len(TEXTS)
    found = together(TEXTS, Draft(match=1), constraints=never, own=own)
    wanted = together(TEXTS, Greedy(), constraints=never, own=own)
    assert [answer.text for answer in found] == [answer.text for answer in wanted]
    assert {answer.text[:2] for answer in found} == {"cb", ""}


def test_another_target_vocabulary_is_refused() -> None:
    first = member(tiny.MODELS["recurrent"])
    with pytest.raises(Problem, match=r"^model 3 of the ensemble: its target vocabulary .*words"):
        first.ensemble([first, member(tiny.MODELS["recurrent"], target="words")])


def test_copied_words_must_have_the_same_numbers() -> None:
    plain = Transducer(tiny.bundle(tiny.MODELS["recurrent"], joint=True))
    head = {"kind": "pointer_generator", "new_words": 4}
    copying = Transducer(tiny.bundle(tiny.COPYING | {"head": head}, joint=True))
    both = copying.ensemble([Transducer(tiny.bundle(tiny.COPYING | {"head": head}, joint=True))])
    assert [x.text for x in both(TEXTS)] == [x.text for x in copying(TEXTS)]
    with pytest.raises(Problem, match="new_words"):
        copying.ensemble([plain])


def test_an_ensemble_has_no_one_attention() -> None:
    together = member(tiny.MODELS["recurrent"]).ensemble([member(tiny.MODELS["recurrent"])])
    with pytest.raises(Problem, match="ask one of them"):
        together("abc", attention=True)


def test_the_shortest_memory_for_positions_limits_all() -> None:
    short = tiny.TRANSFORMER | {"positions": {"kind": "learned", "longest": 5}}
    limited = member({"encoder": tiny.RECURRENT, "decoder": short})
    free = member(tiny.MODELS["recurrent"])
    for together in (free.ensemble([limited]), limited.ensemble([free])):
        assert all(len(answer.tokens) <= 5 for answer in together(["abc bcd dab"] * 2))
        with pytest.raises(Problem, match="5 positions"):
            together.force(["abc"], ["abcdabcd"])


@pytest.mark.parametrize("kind", ["recurrent", "transformer", "convolutional"])
@pytest.mark.parametrize("small", ["recurrent", "transformer"])
def test_a_draft_model_changes_no_answer(kind: str, small: str) -> None:
    model = tiny.transducer(tiny.MODELS[kind])
    aided = model.with_draft_model(member(tiny.MODELS[small], "words", seed=3))
    search = Speculative(span=3)
    for ours, theirs in zip(aided(TEXTS, search), model(TEXTS, Greedy()), strict=True):
        assert ours.text == theirs.text
        assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-4)
    assert "".join(aided.stream("dab", search)) == model("dab", Greedy()).text
    assert [x.text for x in aided(TEXTS)] == [x.text for x in model(TEXTS)]
    never = [ForbiddenBlueprint(phrases=("a",))]
    obeyed = aided(TEXTS, search, constraints=never)
    assert [x.text for x in obeyed] == [x.text for x in model(TEXTS, Greedy(), constraints=never)]
    own = [None, None, Own(prefix="cc"), Own(required=("ad",)), None]
    apart = [x.text for x in model(TEXTS, Greedy(), constraints=never, own=own)]
    assert [x.text for x in aided(TEXTS, search, constraints=never, own=own)] == apart
    assert apart != [x.text for x in obeyed]


def test_a_draft_model_must_suit() -> None:
    model = member(tiny.MODELS["recurrent"])
    with pytest.raises(Problem, match=r"^search: speculative search has no small model"):
        model("abc", Speculative())
    with pytest.raises(Problem, match=r"^drafter: its target vocabulary .*words"):
        model.with_draft_model(member(tiny.MODELS["recurrent"], target="words"))
    with pytest.raises(Problem, match=r"^drafter: several models together"):
        model.with_draft_model(model.ensemble([model]))
    short = tiny.TRANSFORMER | {"positions": {"kind": "learned", "longest": 5}}
    drafter = member({"encoder": tiny.RECURRENT, "decoder": short})
    with pytest.raises(Problem, match=r"^drafter: it has learned 5 positions"):
        model.with_draft_model(drafter)
    assert (
        drafter.with_draft_model(drafter)("abc", Speculative()).text
        == drafter("abc", Greedy()).text
    )
