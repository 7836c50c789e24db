"""Outputs whose text is a sentence of a context-free grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationInfo, model_validator

from transduce.problem import Problem
from transduce.search.constrain.constraint import ConstraintBlueprint, Target
from transduce.search.constrain.context_free import Grammar
from transduce.search.constrain.ebnf import read_grammar
from transduce.search.constrain.match import Matching
from transduce.search.constrain.spelling import ANYTHING, Spelling, spelling


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

    def grammar(self, able: Spelling = ANYTHING) -> Grammar:
        """Return the grammar, of characters that can be written."""
        return Grammar(*read_grammar(self.rules, self.start, "rules"), *able)

    def build(self, target: Target) -> Matching[int]:
        """Make the constraint."""
        texts = target.texts()
        grammar = self.grammar(spelling(texts))
        if grammar.empty:
            raise Problem(
                f"each sentence of the grammar (start: {self.start}) has characters that the model "
                "has no symbol for, so it can never write one; spell it otherwise",
                "constraints",
            )
        return Matching(grammar, texts, target.device, target.limit)
