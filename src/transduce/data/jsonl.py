"""Corpora on disk: JSON lines, read one example at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from transduce.data.lines import Fault, Line, read_lines
from transduce.data.read import FilesBlueprint, Row
from transduce.problem import nearest


class JsonlBlueprint(FilesBlueprint):
    """A JSON object a line."""

    kind: Literal["jsonl"] = "jsonl"
    source: str = "source"
    """the key of the source, a text"""
    target: str = "target"
    """the key of the target, a text, or a list of texts: as many references of the source"""
    weight: str | None = None
    """the key of the weight, a number, or one for each word: what the loss of an example counts"""
    ease: str | None = None
    """the key of how easy the example is, a number, for a curriculum of what is given"""
    alignment: str | None = None
    """the key of the alignment, a text such as 0-0 2-1: places of words, source before target"""

    def rows(self, base: Path) -> Iterator[Row | Fault]:
        for name in self.files:
            for line in read_lines(base / name):
                try:
                    yield line.fault or self._read(line)
                except ValueError as error:
                    yield Fault(line.place, "wrong JSON", str(error))

    def _read(self, line: Line) -> Row:
        try:
            record = json.loads(line.text, object_pairs_hook=_object, parse_int=float)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"no JSON ({error.msg} at character {error.pos + 1}); mend it"
            ) from None
        except RecursionError:
            raise ValueError("no JSON (nested too deep); mend it") from None
        if not isinstance(record, dict):
            raise ValueError(f"{_show(record)} is no object; write one: {{...}}")
        source, targets = _value(record, self.source), _value(record, self.target)
        if targets == []:
            raise ValueError(f"{self.target!r} is an empty list; write a text")
        references = targets if isinstance(targets, list) else [targets]
        texts = [_text(target, self.target) for target in references]
        texts += [_numbers(_value(record, key)) for key in (self.weight, self.ease) if key]
        if self.alignment:
            texts.append(_text(_value(record, self.alignment), self.alignment))
        return self._row(
            Line(line.place, _text(source, self.source)), [Line(line.place, one) for one in texts]
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("the same key twice; keep one")
    return made


def _value(record: dict[str, Any], key: str) -> Any:
    if key not in record:
        meant = nearest(key, record)
        hint = f"did you mean {meant!r}?" if meant else f"there is ({', '.join(record)})"
        raise ValueError(f"there is no key {key!r}; {hint}")
    return record[key]


def _numbers(value: Any) -> str:
    return " ".join(map(json.dumps, value)) if isinstance(value, list) else json.dumps(value)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key!r}: {_show(value)} is no text; write one in quotes")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key!r} holds half of a surrogate pair; repair the text") from None
    return value


def _show(value: Any) -> str:
    """Return a short picture of a JSON value."""
    text = json.dumps(value)
    return text if len(text) <= 30 else f"{text[:30]}..."
