"""Constraints as people write them: as text, in experiments, in calls and on the command line."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from transduce.blueprint import Blueprint, override
from transduce.bundle import Bundle
from transduce.problem import Problem
from transduce.recipe.use import predict
from transduce.result import Result
from transduce.search import Beam, Greedy
from transduce.search.constrain import (
    AllowedBlueprint,
    ConstraintBlueprint,
    ForbiddenBlueprint,
    MatchBlueprint,
    NoRepeatBlueprint,
    PrefixBlueprint,
    RepetitionPenaltyBlueprint,
    RequiredBlueprint,
)
from transduce.search.length import Length
from transduce.text.codec import CodecBlueprint, TextCodec
from transduce.train.checkpoint import tensors
from transduce.train.progress import Show
from transduce.transducer import Transducer

TEXTS = ["abc", "bcd", "dab", "a cab", "ä <b> &", "abcd" * 5]


@pytest.fixture(scope="module", params=["transformer", "copying"])
def model(request: pytest.FixtureRequest) -> Transducer:
    if request.param == "copying":
        return Transducer(tiny.bundle(tiny.COPYING, joint=True), torch.device("cpu"))
    return tiny.transducer(tiny.MODELS["transformer"])


def ask(model: Transducer, *constraints: ConstraintBlueprint) -> list[Result]:
    """Return what both searches answer."""
    return [
        answer
        for search in (Greedy(), Beam(width=3))
        for answer in model(TEXTS, search, constraints=constraints)
    ]


def test_answers_obey(model: Transducer) -> None:
    free = ask(model)
    letter = max("abcd", key=lambda letter: sum(letter in answer.text for answer in free))
    assert any(letter in answer.text for answer in free)
    assert not any(letter in a.text for a in ask(model, ForbiddenBlueprint(phrases=(letter,))))
    for answer in ask(model, RequiredBlueprint(phrases=("dab", ("bb", "cc")))):
        assert "dab" in answer.text
        assert "bb" in answer.text or "cc" in answer.text
    assert all(answer.text.startswith("ca") for answer in ask(model, PrefixBlueprint(text="ca")))
    allowed = AllowedBlueprint(texts=("cab", "cabd", "a"))
    assert all(answer.text in allowed.texts for answer in ask(model, allowed))
    for answer in ask(model, NoRepeatBlueprint(size=1)):
        pieces = [token.piece for token in answer.tokens if token.piece != "</s>"]
        assert len(pieces) == len(set(pieces))


def test_answers_match(model: Transducer) -> None:
    for expression in ("(ab|c)+d", r"a.{2,4}b", "[^ab]*", "x?"):
        for answer in ask(model, MatchBlueprint(expression=expression)):
            assert not answer.finished or re.fullmatch(expression, answer.text)
    assert {answer.text for answer in ask(model, MatchBlueprint(expression="(a|ab)(c|cd)?"))} <= {
        "a", "ab", "ac", "acd", "abc", "abcd",
    }  # fmt: skip


def test_answers_match_within_the_limit_or_say_so(model: Transducer) -> None:
    limited = copy(model)
    limited.length = Length(most=8)
    for answer in ask(limited, MatchBlueprint(expression="(a|b)*cab")):
        assert answer.finished
        assert re.fullmatch("(a|b)*cab", answer.text)
    assert not any(answer.finished for answer in ask(limited, MatchBlueprint(expression="a{9}b*")))
    with pytest.raises(
        Problem, match=r"^constraints: each text that 'a\+ж' matches has characters"
    ):
        ask(model, MatchBlueprint(expression="a+ж"))


KINDS = [
    {"kind": "words"},
    {"kind": "words", "byte_fallback": True},
    {"kind": "characters", "byte_fallback": True},
    {"kind": "bytes"},
    {"kind": "sentencepiece", "size": 300},
    {"kind": "sentencepiece", "model": "bpe", "size": 300},
]


@pytest.mark.parametrize("tokens", KINDS, ids=str)
def test_texts_of_symbols_make_the_text(tokens: dict[str, Any]) -> None:
    lines = ["the river  café", "a cab by the river", "12 cafés: naïve café, the ä"]
    codec = TextCodec.learn(CodecBlueprint.model_validate({"tokens": tokens}), lines)
    texts, chance, checked = codec.tokeniser.texts(), random.Random(0), 0
    assert len(texts) == codec.size
    strings = [codec.encode(line) for line in (*lines, "new: ξ and 中 river")]
    strings += [chance.choices(range(3, codec.size), k=chance.randint(0, 5)) for _ in range(300)]
    for ids in strings:
        found = [texts[id] for id in ids]
        if None in found:
            continue
        whole = b"".join(x if isinstance(x, bytes) else str(x).encode() for x in found)
        try:
            text = whole.decode()
        except UnicodeDecodeError:
            continue
        checked += 1
        assert codec.decode(ids) == (text.removeprefix(" ") if codec.tokeniser.spaced else text)
    assert checked > 3


def test_no_constraints_are_the_model_alone(model: Transducer) -> None:
    assert ask(model) == [a for search in (Greedy(), Beam(width=3)) for a in model(TEXTS, search)]


def test_a_penalty_changes_scores_and_probabilities_stay_such(model: Transducer) -> None:
    free, changed = ask(model), ask(model, RepetitionPenaltyBlueprint(factor=3.0))
    assert [answer.log_prob for answer in free] != [answer.log_prob for answer in changed]
    assert all(token.probability <= 1.0001 for answer in changed for token in answer.tokens)


def test_what_is_impossible_is_said_and_not_looked_for(model: Transducer) -> None:
    nothing = RequiredBlueprint(phrases=("ab" * 60,))
    for answer in ask(model, nothing):
        assert (answer.text, answer.finished, answer.tokens) == ("", False, ())
        assert answer.score == -torch.inf
    contradiction = [PrefixBlueprint(text="ab"), ForbiddenBlueprint(phrases=("b",))]
    for answer in ask(model, *contradiction):
        assert (answer.text, answer.finished) == ("a", False)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (ForbiddenBlueprint(phrases=("ξ",)), "'ξ' holds what the model has no symbol for"),
        (RequiredBlueprint(phrases=("a", ("b", ""))), "a phrase is blank"),
        (AllowedBlueprint(texts=("a", "ξ")), "no symbol for"),
        (PrefixBlueprint(text="ξ"), "no symbol for"),
    ],
)
def test_words_that_cannot_be_written_are_an_error(
    model: Transducer, constraint: ConstraintBlueprint, message: str
) -> None:
    with pytest.raises(Problem, match=message):
        model("abc", constraints=[constraint])


class Setting(Blueprint):
    constraints: tuple[ConstraintBlueprint, ...] = ()


def changed(*changes: str) -> Sequence[ConstraintBlueprint]:
    return override(Setting(), changes).constraints


def test_they_are_written_as_parts() -> None:
    found = changed("constraints=[no_repeat, {kind: required, phrases: [a b, [c, d]]}]")
    assert found == (NoRepeatBlueprint(), RequiredBlueprint(phrases=("a b", ("c", "d"))))
    with pytest.raises(Problem, match="a \\( is not closed"):
        changed("constraints=[{kind: match, expression: (a}]")
    for wrong in ("[forbiden]", "[{kind: forbidden}]", "[{kind: required, phrases: [[]]}]"):
        with pytest.raises(Problem, match="constraints"):
            changed(f"constraints={wrong}")


class Said(Show):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_model_keeps_its_constraints_and_a_change_replaces_them(tmp_path: Path) -> None:
    made = tiny.bundle(tiny.MODELS["transformer"])
    own = (PrefixBlueprint(text="dd"),)
    made = Bundle.make(made.blueprint.model_copy(update={"constraints": own}), made.codecs)
    made.save(tmp_path / "model", tensors(made.model), "# a card\n")
    loaded = Transducer.load(tmp_path / "model")
    assert loaded.constraints == own
    assert all(answer.text.startswith("dd") for answer in loaded(TEXTS))
    show = Said()
    lines = list(predict(tmp_path / "model", TEXTS, show=show))
    assert all(line.startswith("dd") for line in lines)
    changes = ["constraints=[{kind: allowed, texts: [ab]}]"]
    assert list(predict(tmp_path / "model", TEXTS, changes, show=show)) == ["ab"] * len(TEXTS)
    show.lines.clear()
    changes = [f"constraints=[{{kind: required, phrases: [{'ab' * 60}]}}]"]
    assert list(predict(tmp_path / "model", TEXTS[:2], changes, show=show)) == ["", ""]
    assert len(show.lines) == 1
    assert "the constraints allow none (within the length limit): lines 1, 2" in show.lines[0]
