"""Strict YAML 1.2 (core schema): text to plain data and the place of every key, and back.

``no`` is text, ``1e-3`` is a number, ``1:30`` is text. What surprises is refused: a key given
twice, tabs, anchors and aliases, merge keys, tags, directives, several documents in one file and
invisible characters. Keys are always text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from transduce.problem import Problem

Path = tuple[str | int, ...]
DEEPEST = 50

# YAML 1.2.2, section 10.3.2: how the core schema reads a plain scalar
WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
WHOLE = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
ENDLESS = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

INVISIBLE = re.compile(
    "[^\t\n\r -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
PLAIN = re.compile(r"[^\W\d][\w/.+-]*( [\w/.+-]+)*|\.{0,2}/[\w/.+-]*")
WORDS_OF_YAML_1_1 = {"y", "n", "yes", "no", "on", "off"}  # quoted for other programs' sake


@dataclass
class Document:
    """Plain data and where each part of it was written, such as ``exp.yaml:14``."""

    data: Any
    places: dict[Path, str]

    def value(self, path: Path) -> Any:
        """Return what stands at ``path``; None where nothing does."""
        value = self.data
        for step in path:
            value = entry(value, step)
        return value

    def nearest(self, path: Path) -> Path:
        """Return ``path`` or, if it was not written, the nearest thing around it."""
        while path not in self.places:
            path = path[:-1]
        return path

    def place(self, path: Path) -> str:
        """Return where ``path``, or else the nearest thing around it, was written."""
        return self.places[self.nearest(path)]

    def move(self, path: Path, place: str) -> None:
        """Note that everything at ``path`` now comes from ``place``."""
        self.places = {p: at for p, at in self.places.items() if p[: len(path)] != path}
        self.places[path] = place


def entry(value: Any, step: str | int) -> Any:
    """Return what a mapping holds at a key or a list at an index; None where there is nothing."""
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def load(text: str, name: str, numbered: bool = True) -> Document:
    """Read one document.

    Args:
        text: the document.
        name: what to call it in errors.
        numbered: whether places carry the line number.

    Raises:
        Problem: it is not YAML, or is YAML that this reader refuses.
    """
    return _Reader(name, numbered).document(text)


def resolve(text: str) -> Any:
    """Return the value of a plain (unquoted) scalar."""
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if REAL.fullmatch(text):
        return float(text)
    if ENDLESS.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


class _Reader:
    """Turns the events of one document into data."""

    def __init__(self, name: str, numbered: bool) -> None:
        self.name, self.numbered = name, numbered
        self.places: dict[Path, str] = {(): self.at(1)}

    def at(self, line: int) -> str:
        return f"{self.name}:{line}" if self.numbered else self.name

    def document(self, text: str) -> Document:
        text = text.removeprefix("\ufeff")  # a byte order mark
        if found := INVISIBLE.search(text):
            line, code = text.count("\n", 0, found.start()) + 1, f"{ord(found[0]):04X}"
            raise Problem(
                f'the character U+{code} must not stand here; write "\\u{code}" in double quotes',
                self.at(line),
            )
        try:
            events = list(YAML(typ="safe", pure=True).parse(text))
        except MarkedYAMLError as error:
            _syntax_problem(self, error, text)
        for event in events:
            self.refuse_surprises(event)
        content = (e for e in events if isinstance(e, _CONTENT))
        first = next(content, None)
        data = None if first is None else self.value(first, content, ())
        if (extra := next(content, None)) is not None:
            raise Problem("a second document starts here; keep one", self.at(_line(extra)))
        return Document(data, self.places)

    def refuse_surprises(self, event: Event) -> None:
        at = self.at(_line(event))
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise Problem("anchors (&) and aliases (*) are not read; write the value out", at)
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            raise Problem("directives (%) are not read; this is always YAML 1.2", at)
        if isinstance(event, _CONTENT[:3]) and event.tag:
            raise Problem(f"tags such as {event.tag} are not read; write the plain value", at)

    def value(self, event: Event, events: Iterator[Event], path: Path) -> Any:
        if len(path) > DEEPEST:
            raise Problem(f"nested more than {DEEPEST} deep", self.at(_line(event)))
        if isinstance(event, MappingStartEvent):
            return self.mapping(events, path)
        if isinstance(event, SequenceStartEvent):
            return self.sequence(events, path)
        return self.scalar(event)  # type: ignore[arg-type]

    def scalar(self, event: ScalarEvent) -> Any:
        try:  # JSON escapes letters beyond U+FFFF as two halves
            text = event.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise Problem("half of a character (a surrogate)", self.at(_line(event))) from None
        if event.style is not None:
            return text
        try:
            return resolve(text)
        except ValueError:
            raise Problem("a number of too many digits", self.at(_line(event))) from None

    def sequence(self, events: Iterator[Event], path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            here = (*path, len(items))
            self.places[here] = self.at(_line(event))
            items.append(self.value(event, events, here))
        return items

    def mapping(self, events: Iterator[Event], path: Path) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            at = self.at(_line(event))
            if not isinstance(event, ScalarEvent):
                raise Problem("a key must be one word", at)
            key = event.value
            here = (*path, key)
            dotted = ".".join(map(str, here))
            if key in entries:
                raise Problem(f"given before, at {self.places[here]}; keep one", f"{at}: {dotted}")
            if key == "<<":
                raise Problem("merge keys are not read; write the values out", f"{at}: {dotted}")
            self.places[here] = at
            entries[key] = self.value(next(events), events, here)
        return entries


_CONTENT = (
    ScalarEvent, SequenceStartEvent, MappingStartEvent, SequenceEndEvent, MappingEndEvent,
)  # fmt: skip


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _syntax_problem(reader: _Reader, error: MarkedYAMLError, text: str) -> NoReturn:
    problem = str(error.problem)
    line = (error.problem_mark or error.context_mark).line + 1
    if "'\\t'" in problem:
        what = "a tab; use spaces"
    elif problem.startswith("mapping values"):
        what = (
            "a second ': ' in one entry; indent keys of one mapping alike, and quote text "
            "that holds ': '"
        )
    elif found := re.match(r"found character '(.)' that cannot start", problem):
        what = f"a value cannot start with {found[1]}; put it in quotes"
    elif error.context_mark and re.search("^expected ','|end of stream", problem):
        opened = error.context_mark
        sign = text.split("\n")[opened.line][opened.column]
        what = f"the {sign} of line {opened.line + 1} is not closed"
    else:
        what = f"not YAML ({problem}); indent the keys of one mapping alike"
    raise Problem(what, reader.at(line)) from None


def write_scalar(value: Any) -> str:
    """Write one plain value so that ``load`` reads it back."""
    if isinstance(value, float) and not isfinite(value):
        return f".{value}" if value > 0 or value != value else "-.inf"
    if not isinstance(value, str):
        return json.dumps(value)
    if (
        PLAIN.fullmatch(value)
        and value.lower() not in WORDS_OF_YAML_1_1
        and resolve(value) == value
    ):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
