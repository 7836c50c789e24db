from __future__ import annotations

import itertools
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.problem import Problem
from transduce.text.normalise import NormaliserBlueprint

FORMS: list[Literal["nfc", "nfkc", "nfd", "none"]] = ["nfc", "nfkc", "nfd", "none"]
ALL = [
    NormaliserBlueprint(unicode=unicode, lower=lower, whitespace=whitespace)
    for unicode, lower, whitespace in itertools.product(FORMS, [False, True], [False, True])
]
texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("normalise", ALL, ids=str)
@given(text=texts)
def test_twice_is_once(normalise: NormaliserBlueprint, text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def test_the_default_composes_and_tidies_but_keeps_case() -> None:
    assert NormaliserBlueprint()(" A\u0308b\t\u2028 \ufb01\r\n") == "Äb ﬁ"


def test_each_setting_does_its_work() -> None:
    assert NormaliserBlueprint(unicode="nfkc")("ﬁ Ａ") == "fi A"
    assert NormaliserBlueprint(unicode="nfd")("é 한") == "e\u0301 \u1112\u1161\u11ab"
    assert NormaliserBlueprint(unicode="none")("A\u0308") == "A\u0308"
    assert NormaliserBlueprint(lower=True)("ÄB") == "äb"
    assert NormaliserBlueprint(lower=True)("J\u030c") == "\u01f0"
    assert NormaliserBlueprint(whitespace=False)(" a \t b\n") == " a \t b\n"


def test_half_a_surrogate_pair_is_a_problem() -> None:
    with pytest.raises(Problem, match=r"character 2 is U\+D800, half of a surrogate pair; repair"):
        NormaliserBlueprint()("a\ud800")
