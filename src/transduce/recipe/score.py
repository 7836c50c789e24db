"""How likely a model finds given targets: pairs in, log-probabilities out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from transduce.blueprint import override
from transduce.problem import Problem
from transduce.recipe.use import AskBlueprint
from transduce.result import Token
from transduce.transducer import Transducer


class Pair(NamedTuple):
    """A source and a target that is given."""

    place: str
    source: str
    target: str


def score(
    run: Path,
    lines: Iterable[str],
    name: str,
    changes: Sequence[str] = (),
    *,
    parts: Sequence[Path] = (),
    jsonl: bool = False,
    ahead: int = 4096,
) -> Iterator[str]:
    """Yield one line for each line (source, tab, target; a text for a language model), in order.

    It holds the natural logarithm of the probability of the target, a tab, and those of its
    symbols, its end included, separated by spaces; with ``jsonl`` an object that names the symbols.
    ``name`` is what errors call the lines; ``ahead`` of them are read before they are scored.

    Raises:
        Problem: there is no sound model, a change is no right one, or a line is no pair or is
            longer than there are positions learned.
    """
    model = override(AskBlueprint(), changes).joined(Transducer.load(run, parts=parts), parts)
    pair = _pair if model.panel.reads else _text
    pairs = (pair(line, f"{name}:{number}") for number, line in enumerate(lines, 1))
    while block := list(islice(pairs, ahead)):
        places, sources, targets = zip(*block, strict=True)
        for tokens in model.force(sources, targets, places):
            yield _json(tokens) if jsonl else _row(tokens)


def _pair(line: str, place: str) -> Pair:
    cells = line.split("\t")
    if len(cells) != 2:
        what = f"{len(cells)} columns; give two, the source and the target, with a tab between them"
        raise Problem(what, place)
    if not cells[0].strip():
        raise Problem("the source is blank, which no model is asked about; leave it out", place)
    return Pair(place, cells[0], cells[1])


def _text(line: str, place: str) -> Pair:
    return Pair(place, "", line)


def _total(tokens: Sequence[Token]) -> float:
    return sum(token.log_prob for token in tokens)


def _row(tokens: Sequence[Token]) -> str:
    return f"{_total(tokens):.6f}\t" + " ".join(f"{token.log_prob:.6f}" for token in tokens)


def _json(tokens: Sequence[Token]) -> str:
    symbols = [{"piece": token.piece, "log_prob": token.log_prob} for token in tokens]
    return json.dumps({"log_prob": _total(tokens), "tokens": symbols}, ensure_ascii=False)
