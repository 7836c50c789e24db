"""Grammars as people write them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny
import torch
from pydantic import ValidationError

from transduce.blueprint import Blueprint, dump, override, parse, read
from transduce.problem import Problem
from transduce.search import Beam, Greedy
from transduce.search.constrain import (
    ConstraintBlueprint,
    GrammarBlueprint,
    Target,
    Texts,
    holds,
)

LISTS = """
// nested lists
?start: list
list: "(" [item ("," item)*] ")"   // may be empty
item: list
    | NAME -> name
NAME: /[a-d]+/
"""


@pytest.mark.parametrize(
    ("rules", "sentences", "others"),
    [
        (LISTS, "() (a) (a,(b,cd),()) ((()))", "( a (a,) (,a) (e) (a,(b)"),
        ('start: "ab"i ~ 2 "c"~1..3', "ababc ABabc aBAbccc", "abc ababcccc abab"),
        ('start: "a".."c"+ "é"?', "a abc cé", "d é"),
        (r'start: "\"" /[^"\/\\]/* "\""', '"" "a" "é(="', '" "/" "\\"'),
        ('start: x y\nx: "a"|\n|"b"\ny:x*', "ab bb aaa a", "c abc"),
        ("start: sum\nsum: sum /[+-]/ sum | /[0-9]+/", "1 1+2-34", "+ 1+ a"),
        ('start: ("a" | ) "b"?\n\n\nunused: start "c"', "a b ab", "c aa"),
    ],
)
def test_notation(rules: str, sentences: str, others: str) -> None:
    grammar = GrammarBlueprint(rules=rules).grammar()
    assert [text for text in sentences.split(" ") if not holds(grammar, text)] == []
    assert [text for text in others.split(" ") if holds(grammar, text)] == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ('start: "a\n', "rules:1: cannot read '\"a'"),
        ("start: item\nitems: /a/", "rules:1: there is no rule 'item'; did you mean 'items'?"),
        ('begin: "a"', r"no rule 'start' to start with; choose from \(begin\)"),
        ('start: "a"\n\nstart: "b"', "rules:3: start is defined in line 1; use | there"),
        ('start: ("a" | "b"\n', "rules:1: a \\( is not closed"),
        ('start: "a" )', "rules:1: expected a rule, .* found '\\)'"),
        ("start: 'a'", 'texts stand in double quotes: "..."'),
        ('start: "a"\n%ignore " "', "rules:2: cannot read .* say in them where spaces may stand"),
        ("start: /(a/", "rules:1: a \\( is not closed, at character 3"),
        ('start: "ab".."c"', "rules:1: a range goes from one character up"),
        ('start: "a"~3..2', "rules:1: counts go up"),
        ('start: "a"~x', "rules:1: behind ~ stands how often"),
        (r'start: "\q"', r"rules:1: .q is not known"),
        ('"a"', "rules:1: expected a rule, such as start: ..., found '\"a\"'"),
        ('start: "(" start ")"', "no text fulfils start"),
        ("  ", "give rules, or a path"),
    ],
)
def test_mistakes_have_a_place(rules: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GrammarBlueprint(rules=rules)


class Setting(Blueprint):
    constraints: tuple[ConstraintBlueprint, ...] = ()


def test_files_are_read_at_once_from_where_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lists.lark").write_text(LISTS, encoding="utf-8")
    file = tmp_path / "setting.yaml"
    file.write_text("constraints: [{kind: grammar, path: lists.lark}]\n", encoding="utf-8")
    setting = read(file, Setting, trusted=True)
    assert setting.constraints == (GrammarBlueprint(rules=LISTS),)
    assert parse(dump(setting), Setting) == setting
    with pytest.raises(Problem, match="what a folder says names no other file"):
        read(file, Setting)
    monkeypatch.chdir(tmp_path)
    assert override(Setting(), ["constraints=[{kind: grammar, path: lists.lark}]"]) == setting
    assert GrammarBlueprint(path="lists.lark") == GrammarBlueprint(rules=LISTS)
    with pytest.raises(Problem, match=r"none.lark cannot be read: No such file"):
        override(Setting(), ["constraints=[{kind: grammar, path: none.lark}]"])
    (tmp_path / "bad.lark").write_text('start: "a"\nitem: )', encoding="utf-8")
    with pytest.raises(Problem, match=r"constraints.0.*bad.lark:2: expected a rule"):
        override(Setting(), ["constraints=[{kind: grammar, path: bad.lark}]"])
    with pytest.raises(ValidationError, match="a path or rules, not both"):
        GrammarBlueprint(path="lists.lark", rules=LISTS)


def test_models_answer_with_sentences() -> None:
    model = tiny.transducer(tiny.MODELS["transformer"])
    texts = ["abc", "bcd", "dab", "a cab", "abcd" * 5]
    nested = GrammarBlueprint(rules='start: "a" | "b" start "c" | "d" start start')
    for search in (Greedy(), Beam(width=3)):
        found = model(texts, search, constraints=[nested])
        assert all(answer.finished and holds(nested.grammar(), answer.text) for answer in found)
    with pytest.raises(Problem, match=r"each sentence of the grammar .* has no symbol for"):
        model(texts, constraints=[GrammarBlueprint(rules='start: "a" ("ξ" | "中")')])


@pytest.mark.parametrize(
    ("texts", "left"),
    [(["a", "b", "(", ")"], 3), ([b"a", b"b", b"(", b")"], 3), (["(a", ")", "b"], math.inf)],
)
def test_ways_to_the_end_are_of_single_characters(texts: list[str | bytes], left: float) -> None:
    target = Target(lambda text: [], lambda: Texts(texts, False), lambda x: x, torch.device("cpu"))
    made = GrammarBlueprint(rules='start: "(" ("a" | "bb") ")"').build(target)
    assert made.language.left(made.language.first) == left
