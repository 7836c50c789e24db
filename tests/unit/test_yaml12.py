"""YAML 1.2: what plain words mean, and what is refused."""

from __future__ import annotations

import pytest

from transduce.blueprint import yaml12
from transduce.problem import Problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("1e-3", 1e-3), ("1:30", "1:30"), ("010", 10),
        ("0o10", 8), ("0x1F", 31), ("1_000", "1_000"), ("-.5", -0.5), ("3.", 3.0), ("+1", 1),
        ("~", None), ("", None), ("null", None), ("TRUE", True), ("tRue", "tRue"), ("e3", "e3"),
        ("2001-12-14", "2001-12-14"), ("=", "="), ("'3'", "3"), (".", "."),
        ('"\\u00e9"', "é"), ('"\\ud83d\\ude00"', "😀"),
        ("|\n  x\n  y", "x\ny"), (">\n  x\n  y", "x y"), ("[a, [1, ~]]", ["a", [1, None]]),
    ],
)  # fmt: skip
def test_yaml_is_the_core_schema_of_1_2(text: str, value: object) -> None:
    found = yaml12.load(f"key: {text}", "x").data
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a: given before, at x.yaml:1"),
        ("a: {b: 1,\n b: 2}", 2, "a.b: given before, at x.yaml:1"),
        ("a:\n\tb: 1", 2, "a tab; use spaces"),
        ("a: 1\nb:\t2", 2, "a tab; use spaces"),
        ("a: &anchor 1", 1, "anchors (&)"),
        ("a: 1\nb: *anchor", 2, "aliases (*)"),
        ("a: 1\n<<: {b: 2}", 2, "merge keys"),
        ("a: !!int 3", 1, "tags"),
        ("a: !python/object:os.system {}", 1, "tags"),
        ("%YAML 1.1\n---\na: no", 2, "always YAML 1.2"),
        ("a: 1\n---\nb: 2", 3, "second document"),
        ("a: [1,\n 2\nb: 3", 3, "the [ of line 1"),
        ("a: 'x\nb: 3\n", 3, "the ' of line 1 is not closed"),
        ("a: 1\nb: c: d", 2, "quote text that holds ': '"),
        ("a: @x", 1, "cannot start with @; put it in quotes"),
        ("a: 1\n  b: 2", 2, "indent keys of one mapping alike"),
        ("- a\nb: 1", 2, "indent"),
        ("a: 1\nb: x\u2028y", 2, r'U+2028 must not stand here; write "\u2028"'),
        ("a: 1\nb: \x07", 2, "U+0007"),
        ('a: "\\ud800"', 1, "surrogate"),
        ("? [a]\n: 3", 1, "a key must be one word"),
        ("a: " + "9" * 5000, 1, "too many digits"),
        ("a:\n  " + "[" * 60 + "]" * 60, 2, "deep"),
    ],
)
def test_what_surprises_is_refused(text: str, line: int, says: str) -> None:
    with pytest.raises(Problem) as caught:
        yaml12.load(text, "x.yaml")
    assert str(caught.value).startswith(f"x.yaml:{line}: ")
    assert says in str(caught.value)
