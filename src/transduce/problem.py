"""Errors that a person can mend: one line, where it is, what is wrong, what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import ClassVar


class Problem(Exception):
    """Something the user can put right; the command line prints it as one line and exits with 2.

    ``where`` is a place such as ``exp.yaml:14: model.decoder.kind``; ``what`` says what is wrong
    and what to do about it, separated by a semicolon.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, where: str | None = None) -> None:
        self.what, self.where = what, where
        super().__init__(f"{where}: {what}" if where else what)


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that ``word`` was most likely meant to be, or None if nothing is near."""
    by_folded = {choice.casefold().replace("-", "_"): choice for choice in choices}
    found = difflib.get_close_matches(word.casefold().replace("-", "_"), by_folded, 1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def optional(module: str, extra: str) -> ModuleType:
    """Import a module that only some users need.

    Raises:
        Problem: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]  # of what is missing
        raise Problem(
            f"this needs the package {package}; run: pip install 'transduce[{extra}]'"
        ) from error
