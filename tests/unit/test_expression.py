"""Regular expressions: what Python's own say of the same text, and what may still follow."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from transduce.search.constrain.expression import Nfa
from transduce.search.constrain.letters import EVERY, named, others, overlaps
from transduce.search.constrain.spelling import Spelling

ALPHABET = "ab1 é"
STRINGS = ["".join(s) for size in range(5) for s in itertools.product(ALPHABET, repeat=size)]


def expression(chance: random.Random, depth: int = 3) -> str:
    """Return a random expression."""
    kind = chance.randrange(7 if depth else 3)
    if kind < 3:
        atoms: list[str] = [
            *"ab1 é",
            ".",
            r"\d",
            r"\s",
            r"\w",
            r"\W",
            "[^ab]",
            "[a-b1]",
            r"[\d\s]",
            r"[^\w]",
        ]
        return chance.choice(atoms)
    inner = expression(chance, depth - 1)
    if kind == 3:
        return f"({inner}){chance.choice(['*', '+', '?', '{2}', '{1,}', '{0,2}', '{0}'])}"
    if kind == 4:
        return f"(?:{inner}|{expression(chance, depth - 1)})"
    return inner + expression(chance, depth - 1)


def test_expressions_mean_what_they_mean_in_python() -> None:
    chance = random.Random(0)
    matched = 0
    for _ in range(150):
        text = expression(chance)
        nfa, wanted = Nfa(text), re.compile(text)
        reached = {"": nfa.reach({0})}
        for string in STRINGS[1:]:
            reached[string] = nfa.read(reached[string[:-1]], string[-1])
        good = {string for string in STRINGS if wanted.fullmatch(string)}
        matched += len(good)
        assert good == {string for string, states in reached.items() if nfa.end in states}, text
        beginnings = {string[:size] for string in good for size in range(len(string) + 1)}
        assert all(reached[string] for string in beginnings), text
        for string, states in reached.items():
            letters = any(reached[string + letter] for letter in ALPHABET if len(string) < 4)
            assert not letters or nfa.goes_on(states, 0, 0x10FFFF)
    assert matched > 1000


def test_classes_are_those_of_python() -> None:
    for name in "dswDSW":
        letters = named(name)
        assert others(others(letters)) == letters
        for point in [*range(0x3000), 0xAC00, 0x1D7CE, 0x1F600, 0x20000]:
            known = bool(re.fullmatch(rf"\{name}", chr(point)))
            assert overlaps(letters, point, point) == known, hex(point)
    assert others(()) == EVERY
    assert others(EVERY) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(a", "a \\( is not closed"),
        ("a)", "closes nothing"),
        ("[ab", "ends too early"),
        ("*a", "a bare \\* has no place"),
        ("^a$", "a bare \\^ has no place"),
        ("a**", "only one of"),
        ("a{x}", "write \\{2\\}"),
        ("a{3,2}", "counts go up"),
        ("a{5000}", "1000 at most"),
        (r"(a)\1", r"\\1 is not known"),
        ("(?=a)", "of groups only"),
        ("[b-a]", "from one character up"),
        ("a\\", "ends too early"),
    ],
)
def test_what_is_no_expression_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nfa(text)


def test_what_cannot_be_written_leads_nowhere() -> None:
    able = Spelling(lambda letters: not overlaps(letters, ord("x"), ord("x")))
    nfa = Nfa("a(bx|c)|ax?", able)
    assert nfa.left(nfa.first) == 1
    assert not nfa.read(nfa.read(nfa.first, "a"), "b")
    assert nfa.read(nfa.read(nfa.first, "a"), "c")
    assert not Nfa("ax", able).first
    apart = Spelling(alone=lambda letters: not overlaps(letters, ord("x"), ord("x")))
    longer = Nfa("x|abc", apart)
    assert longer.left(longer.first) == 3
    assert longer.left(longer.read(longer.first, "x")) == 0
