"""Outputs whose text is a sentence of a context-free grammar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationInfo, model_validator

from transduce.problem import Problem
from transduce.search.constrain.constraint import ConstraintBlueprint, Target, Texts
from transduce.search.constrain.context_free import Grammar
from transduce.search.constrain.ebnf import read_grammar
from transduce.search.constrain.letters import EVERY, Letters, overlaps, union
from transduce.search.constrain.match import Matching


class GrammarBlueprint(ConstraintBlueprint):
    """The text of the whole output is a sentence of a context-free grammar.

    It is written as for Lark, such as ``list: "(" [item ("," item)*] ")"``, with /expressions/ as
    those of match, and read character by character: rules may be ambiguous, and recursive on any
    side. Either ``path`` or ``rules`` is given.
    """

    kind: Literal["grammar"] = "grammar"
    path: str | None = None
    """file of rules, seen from the experiment's folder; the rules themselves are kept instead"""
    rules: str = ""
    """the rules"""
    start: str = "start"
    """the rule that the whole output fulfils"""

    @model_validator(mode="before")
    @classmethod
    def _open(cls, given: Any, info: ValidationInfo) -> Any:
        """Read the file at once, so that a model needs none but its own."""
        if not isinstance(given, dict) or not isinstance(given.get("path"), str):
            return given
        if given.get("rules"):
            raise ValueError("give a path or rules, not both")
        base = info.context["base"] if info.context else Path()
        if base is None:
            raise ValueError("what a folder says names no other file; give rules here")
        path = given["path"]
        try:
            text = (base / path).read_bytes().decode()
        except OSError as error:
            raise ValueError(f"{base / path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{base / path} is not UTF-8; save it as UTF-8") from None
        read_grammar(text, given.get("start", "start"), path)  # its mistakes have places there
        return {key: value for key, value in given.items() if key != "path"} | {"rules": text}

    @model_validator(mode="after")
    def _is_one(self) -> GrammarBlueprint:
        if not self.rules.strip():
            raise ValueError("give rules, or a path to a file of rules")
        if self.grammar().empty:
            raise ValueError(f"no text fulfils {self.start}: every way asks for a rule once more")
        return self

    def grammar(
        self,
        possible: Callable[[Letters], bool] = bool,
        alone: Callable[[Letters], bool] = bool,
    ) -> Grammar:
        """Return the grammar, of characters that are ``possible`` and some that stand ``alone``."""
        return Grammar(*read_grammar(self.rules, self.start, "rules"), possible, alone)

    def build(self, target: Target) -> Matching[int]:
        """Make the constraint."""
        texts = target.texts()
        grammar = self.grammar(_among(_spelt(texts)), _among(_single(texts)))
        if grammar.empty:
            raise Problem(
                f"each sentence of the grammar (start: {self.start}) has characters that the model "
                "has no symbol for, so it can never write one; spell it otherwise",
                "constraints",
            )
        return Matching(grammar, texts, target.device, target.limit)


def _spelt(texts: Texts) -> Letters:
    """Return the characters that are in the texts of any symbols; with bytes all can be spelt."""
    if any(isinstance(text, bytes) for text in texts.of_symbols):
        return EVERY
    return _letters(_strings(texts))


def _single(texts: Texts) -> Letters:
    """Return the characters that are the whole text of a symbol."""
    ascii = (x.decode() for x in texts.of_symbols if isinstance(x, bytes) and x.isascii())
    return _letters(text for text in chain(_strings(texts), ascii) if len(text) == 1)


def _strings(texts: Texts) -> Iterator[str]:
    return (text for text in texts.of_symbols if isinstance(text, str))


def _letters(texts: Iterable[str]) -> Letters:
    return union((ord(letter), ord(letter)) for text in texts for letter in text)


def _among(letters: Letters) -> Callable[[Letters], bool]:
    """Return what says of a set whether any of it is among some characters."""

    @cache
    def among(one: Letters) -> bool:
        return any(overlaps(one, *span) for span in letters)

    return among
