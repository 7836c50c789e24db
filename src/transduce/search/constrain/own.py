"""What each text has to obey on its own: a beginning, words and phrases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from transduce.blueprint import Blueprint, parse
from transduce.problem import Problem
from transduce.search.constrain.automaton import Phrases
from transduce.search.constrain.constraint import Constraint, Target
from transduce.search.constrain.phrases import written
from transduce.search.constrain.prefix import ForcedPrefix
from transduce.search.constrain.required import OWN, Required, Requirements
from transduce.sequences import Sequences


class Own(Blueprint):
    """What the answer to one text has to obey besides what all have to."""

    prefix: str = ""
    """how it begins, cut into symbols as a text of its own"""
    required: Requirements = ()
    """what it must hold, in any order: each a text, or several of which one must be there"""


class Apart:
    """The constraints of each of several texts, as sources and constraints of a search."""

    def __init__(self, own: Sequence[Own | None], target: Target, first: int = 1) -> None:
        """Take what texts have to obey; ``first`` is the number of the first text, for errors.

        Raises:
            Problem: one has words that the target side cannot write.
        """
        cut = [_cut(one or Own(), target, f"text {at}") for at, one in enumerate(own, first)]
        self.device, self.prefixes = target.device, [prefix for prefix, _ in cut]
        required = Required((), target.limit, target.device, [groups for _, groups in cut])
        self.constraints: list[Constraint[Any]] = [ForcedPrefix(), required]

    def sources(self, texts: Sequence[int]) -> dict[str, Sequences]:
        """Return what a batch of these texts has as further sources."""
        one = torch.ones(len(texts), dtype=torch.long)
        numbers = Sequences(torch.tensor(texts)[:, None], one)
        prefixes = [torch.tensor(self.prefixes[text], dtype=torch.long) for text in texts]
        stacked = {OWN: numbers, "prefix": Sequences.stack(prefixes)}
        return {name: sequences.to(self.device) for name, sequences in stacked.items()}


def _cut(own: Own, target: Target, place: str) -> tuple[list[int], list[Phrases]]:
    """Return the symbols of a prefix and those of required phrases."""
    groups = [(one,) if isinstance(one, str) else one for one in own.required]
    try:
        prefix = written(own.prefix, target) if own.prefix else []
        return prefix, [[written(text, target) for text in group] for group in groups]
    except Problem as problem:
        raise Problem(problem.what, place) from None


def read_own(path: Path, target: Target | None = None) -> Iterator[Own | None]:
    """Yield what each line of a file asks: a JSON object, or nothing.

    Raises:
        Problem: a line is neither, or has words that the ``target`` side cannot write; it is named.
    """
    try:
        with path.open("rb") as file:
            for number, content in zip(count(1), file):
                own = _own(content, path, number) if content.strip() else None
                if own is not None and target is not None:
                    _cut(own, target, f"{path}:{number}")
                yield own
    except OSError as error:
        raise Problem(f"cannot be read: {error.strerror}", str(path)) from None


def _own(content: bytes, path: Path, number: int) -> Own:
    try:
        return Own.model_validate_json(content, strict=True)
    except ValidationError:
        try:
            text = content.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise Problem("not UTF-8; save the file as UTF-8", f"{path}:{number}") from None
        # JSON is YAML, of which mistakes are told line by line.
        parse("\n" * (number - 1) + text, Own, str(path))
        raise Problem(
            'expected JSON, such as {"required": ["river"]}', f"{path}:{number}"
        ) from None
