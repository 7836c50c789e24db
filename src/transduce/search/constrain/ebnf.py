"""Grammars as people write them: the notation of Lark, which is EBNF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

from transduce.problem import nearest
from transduce.search.constrain.context_free import Symbol
from transduce.search.constrain.expression import MOST, Nfa
from transduce.search.constrain.letters import union

TOKENS: Final = re.compile(
    r"""
    (?P<space>   [ \t\r]+ | //[^\n]* )
  | (?P<line>    \n )
  | (?P<define>  ^[ \t]* [?!]* [A-Za-z_]\w* [ \t]* : )
  | (?P<name>    [A-Za-z_]\w* )
  | (?P<text>    " (?:[^"\\\n] | \\.)* " i? )
  | (?P<regular> / (?:[^/\\\n] | \\.)+ / )
  | (?P<number>  \d+ )
  | (?P<sign>    -> | \.\. | [|()\[\]*+?~] )
    """,
    re.VERBOSE | re.MULTILINE | re.ASCII,
)
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


class Token(NamedTuple):
    """A piece of what is written, and its line."""

    kind: str
    text: str
    line: int


def read_grammar(text: str, start: str, name: str) -> tuple[list[list[list[Symbol]]], int]:
    """Return the rules that are written, each as its alternatives, and the number of ``start``.

    ``name`` stands before the numbers of lines in what is said of mistakes.

    Raises:
        ValueError: it is no grammar, a rule is not defined, or twice.
    """
    return _Reader(text, name).read(start)


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self.name, self.at = name, 0
        self.tokens = [*self._tokens(text), Token("end", "", text.count("\n") + 1)]
        self.rules: list[list[list[Symbol]]] = []
        self.numbers: dict[str, int] = {}
        self.asked: dict[str, int] = {}  # the line of the first use

    def read(self, start: str) -> tuple[list[list[list[Symbol]]], int]:
        defined = dict[str, int]()
        while self._peek().kind != "end":
            token = self._take()
            if token.kind != "define":
                self._fail(f"expected a rule, such as {start}: ..., found {token.text!r}", token)
            name = token.text.strip(" \t?!:")
            if name in defined:
                self._fail(f"{name} is defined in line {defined[name]}; use | there", token)
            defined[name] = token.line
            self.rules[self._number(name)] = self._choice()
        for name, line in self.asked.items():
            if name not in defined:
                meant = nearest(name, defined)
                hint = f"did you mean {meant!r}?" if meant else "define it"
                self._fail(f"there is no rule {name!r}; {hint}", Token("name", name, line))
        if start not in defined:
            raise ValueError(
                f"{self.name}: there is no rule {start!r} to start with; choose from "
                f"({', '.join(defined)})"
            )
        return self.rules, self.numbers[start]

    def _tokens(self, text: str) -> Iterator[Token]:
        at, line = 0, 1
        while at < len(text):
            found = TOKENS.match(text, at)
            if found is None:
                rest = text[at:].partition("\n")[0]
                self._fail(f"cannot read {rest!r}{_hint(rest)}", Token("", rest, line))
            assert found.lastgroup is not None
            if found.lastgroup == "line":
                line += 1
            elif found.lastgroup != "space":
                yield Token(found.lastgroup, found.group(), line)
            at = found.end()

    def _fail(self, what: str, token: Token) -> NoReturn:
        raise ValueError(f"{self.name}:{token.line}: {what}")

    def _peek(self) -> Token:
        return self.tokens[self.at]

    def _take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def _next_is(self, sign: str) -> bool:
        """Take a sign if it comes next."""
        here = self._peek() if self.at < len(self.tokens) else Token("end", "", 0)
        self.at += (found := here.kind == "sign" and here.text == sign)
        return found

    def _number(self, name: str) -> int:
        if name not in self.numbers:
            self.numbers[name] = self._new([])
        return self.numbers[name]

    def _new(self, alternatives: list[list[Symbol]]) -> int:
        self.rules.append(alternatives)
        return len(self.rules) - 1

    def _choice(self) -> list[list[Symbol]]:
        ways = [self._row()]
        while self._next_is("|"):
            ways.append(self._row())
        return ways

    def _row(self) -> list[Symbol]:
        row: list[Symbol] = []
        while self._peek().kind in ("name", "text", "regular") or self._peek().text in ("(", "["):
            row += self._repeated()
        if self._next_is("->") and self._take().kind != "name":  # a name for trees, which none asks
            self._fail("behind -> stands a name", self.tokens[self.at - 1])
        if self._peek().kind not in ("define", "end") and self._peek().text not in ("|", ")", "]"):
            self._fail(f"{self._peek().text!r} has no place here", self._peek())
        return row

    def _repeated(self) -> list[Symbol]:
        part = self._part()
        if self._next_is("?"):
            return [self._new([[], part])]
        if self._next_is("*"):
            return [self._many(part, [])]
        if self._next_is("+"):
            return [self._many(part, part)]
        if self._next_is("~"):
            least = self._count()
            most = self._count() if self._next_is("..") else least
            if most < least:
                self._fail(f"counts go up, and to {MOST} at most", self.tokens[self.at - 1])
            further: list[Symbol] = []
            for _ in range(most - least):
                further = [self._new([[], [*part, *further]])]
            return [*part * least, *further]
        return part

    def _many(self, part: list[Symbol], first: list[Symbol]) -> int:
        number = self._new([])
        self.rules[number] = [first, [number, *part]]
        return number

    def _count(self) -> int:
        token = self._take()
        if token.kind != "number" or int(token.text) > MOST:
            self._fail(f"behind ~ stands how often, up to {MOST}: ~2 or ~2..5", token)
        return int(token.text)

    def _part(self) -> list[Symbol]:
        token = self._take()
        if token.kind == "name":
            self.asked.setdefault(token.text, token.line)
            return [self._number(token.text)]
        if token.kind == "text":
            return self._literal(token)
        if token.kind == "regular":
            return [self._regular(token)]
        ways = self._choice()
        if not self._next_is(")" if token.text == "(" else "]"):
            self._fail(f"a {token.text} is not closed", token)
        return [self._new([[], *ways] if token.text == "[" else ways)]

    def _literal(self, token: Token) -> list[Symbol]:
        either = token.text.endswith("i")
        letters = self._letters(token)
        if self._next_is(".."):
            other = self._take()
            last = self._letters(other) if other.kind == "text" else ""
            if len(letters) != 1 or len(last) != 1 or last < letters:
                self._fail("a range goes from one character up to another", token)
            return [((ord(letters), ord(last)),)]
        cases = [{x, x.lower(), x.upper()} if either else {x} for x in letters]
        return [union((ord(x), ord(x)) for x in case if len(x) == 1) for case in cases]

    def _letters(self, token: Token) -> str:
        inside = token.text.removesuffix("i")[1:-1]

        def meant(found: re.Match[str]) -> str:
            sign = found[1]
            return ESCAPES.get(sign) or self._fail(rf"\{sign} is not known", token)

        return re.sub(r"\\(.)", meant, inside)

    def _regular(self, token: Token) -> int:
        """Add a rule for every state of an expression's automaton."""
        try:
            nfa = Nfa(token.text[1:-1])
        except ValueError as error:
            self._fail(str(error), token)
        base = len(self.rules)
        for state, (steps, free) in enumerate(zip(nfa.steps, nfa.free, strict=True)):
            ways: list[list[Symbol]] = [[letters, base + to] for letters, to in steps]
            ways += [[base + to] for to in free]
            self._new([*ways, []] if state == nfa.end else ways)
        return base


def _hint(rest: str) -> str:
    if rest.startswith("%"):
        return "; rules are all there is: say in them where spaces may stand"
    if rest.startswith("'"):
        return '; texts stand in double quotes: "..."'
    return ""
