"""Predictions as training went on: one card for each example, changed words marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from transduce.report.markup import clip, count, rest_note, text, within
from transduce.report.run import Record, items, number

OPEN_CARDS = 4
ROOM = 250_000  # letters of all cards together
MOST_ROWS = 14  # predictions shown of one example
MOST_REFERENCES = 20
LONGEST = 1200  # letters of one text

# words, each with the space behind it; of text without spaces (kana, Han, fullwidth) characters
_UNSPACED = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_POINTS = r".,;:!?()\[\]\""
_WORD = re.compile(rf"(?:[{_UNSPACED}]|[{_POINTS}]|[^\s{_UNSPACED}{_POINTS}]+)\s*")


@dataclass(frozen=True)
class Stretch:
    """Validations in a row with the same prediction."""

    first: float
    last: float
    prediction: str


def cards(samples: Sequence[Record]) -> str:
    """Return a card for every example that there is room for, most of them folded away."""
    examples = _by_example(samples)
    made = (_card(place, rows) for place, rows in enumerate(examples, start=1))
    done = within(made, ROOM)
    shown, folded = "".join(done[:OPEN_CARDS]), "".join(done[OPEN_CARDS:])
    if folded:
        what = f"{len(done) - OPEN_CARDS} more example{'s' if len(done) > OPEN_CARDS + 1 else ''}"
        shown += f'<details class="more"><summary>{what}</summary>{folded}</details>'
    return shown + rest_note(len(examples) - len(done), "example", "samples.jsonl")


def stretches(rows: Sequence[Record]) -> list[Stretch]:
    """Join neighbouring validations that predicted the same."""
    joined: list[Stretch] = []
    for row in rows:
        step, prediction = number(row.get("step")) or 0.0, clip(row.get("prediction", ""), LONGEST)
        if joined and joined[-1].prediction == prediction:
            joined[-1] = Stretch(joined[-1].first, step, prediction)
        else:
            joined.append(Stretch(step, step, prediction))
    return joined


def changes(before: str, after: str) -> str:
    """Return ``after`` as HTML: new words marked, a thin line where words went away."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    left, right = ([word.rstrip() for word in words] for words in (old, new))
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    parts = []
    for kind, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        there, gone = "".join(new[new_start:new_end]), "".join(old[old_start:old_end])
        if kind == "equal":
            parts.append(text(there))
        elif there:
            word = there.rstrip()
            parts.append(f"<mark>{text(word)}</mark>{text(there[len(word) :])}")
        else:
            parts.append(f'<span class="gone" title="gone: {text(gone.rstrip())}"></span>')
    return "".join(parts)


def _by_example(samples: Sequence[Record]) -> list[list[Record]]:
    """Group the samples by example; of two for one step the later counts (a resumed run)."""
    examples: dict[str, dict[float, Record]] = {}
    for sample in samples:
        step = number(sample.get("step"))
        if step is not None:
            examples.setdefault(str(sample.get("index")), {})[step] = sample
    return [[rows[step] for step in sorted(rows)] for rows in examples.values()]


def _card(place: int, rows: Sequence[Record]) -> str:
    newest = rows[-1]
    references = [clip(reference, LONGEST) for reference in items(newest.get("references"))]
    source = clip(newest.get("source", ""), LONGEST)
    return (
        f'<article class="card"><h3>Example {place}</h3><dl>'
        f'<dt>Source</dt><dd dir="auto" class="source">{text(source)}</dd>'
        f"<dt>Reference</dt><dd>{_references(references)}</dd></dl>"
        f"{_course(stretches(rows), references, place)}</article>"
    )


def _references(references: Sequence[str]) -> str:
    if not references:
        return '<p class="note">none</p>'
    first, *others = (f'<p dir="auto">{text(r)}</p>' for r in references[:MOST_REFERENCES])
    if not others:
        return first
    rest = rest_note(len(references) - MOST_REFERENCES, "reference", "samples.jsonl")
    return f"{first}<details><summary>{len(others)} more</summary>{''.join(others)}{rest}</details>"


def _course(found: Sequence[Stretch], references: Sequence[str], place: int) -> str:
    """Return a row for each prediction; of very many, some from start to end."""
    shown = [found[at * (len(found) - 1) // (MOST_ROWS - 1)] for at in range(MOST_ROWS)]
    shown = shown if len(found) > MOST_ROWS else list(found)
    before = [None, *(stretch.prediction for stretch in shown)]
    rows = [_row(*pair, references) for pair in zip(shown, before, strict=False)]
    return (
        f'<table class="course"><caption class="unseen">Example {place}: predictions by step'
        '</caption><thead><tr><th scope="col">step</th><th scope="col">prediction</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
        f"{rest_note(len(found) - len(shown), 'prediction', 'samples.jsonl')}"
    )


def _row(stretch: Stretch, before: str | None, references: Sequence[str]) -> str:
    prediction = stretch.prediction
    marked = text(prediction) if before is None else changes(before, prediction)
    empty = '<span class="note">(empty)</span>' if not prediction.strip() else ""
    right = '<span class="right">equals a reference</span>'
    right = right if prediction.strip() in map(str.strip, references) else ""
    return (
        f'<tr><th scope="row">{_steps(stretch)}</th>'
        f'<td><p dir="auto">{marked}{empty}</p>{right}</td></tr>'
    )


def _steps(stretch: Stretch) -> str:
    if stretch.first == stretch.last:
        return count(stretch.first)
    return f"{count(stretch.first)}\N{EN DASH}{count(stretch.last)}"
