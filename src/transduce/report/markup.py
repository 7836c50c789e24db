"""Text, numbers and tables as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

# what HTML has no place for: control characters other than tab and newline
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def text(value: Any) -> str:
    """Return anything as escaped text, fit for content and for quoted attributes."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True)


def own(value: Any) -> str:
    """Return text of unknown language and direction, kept from disturbing what is around it."""
    return f"<bdi>{text(value)}</bdi>"


def count(value: float) -> str:
    """Write a whole number: 42,061."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Write a large number in three digits: 1.2M, 45k, 120."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def real(value: float) -> str:
    """Write a number in four digits: 0.001, 2.134, 66.2, 12,345."""
    if value and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return digits.replace("-", "\N{MINUS SIGN}")


def score(value: float) -> str:
    """Write a score as papers do: 66.2, and 5.45 below 10."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Write a time: 48 s, 12 min, 1 h 05 min, 2 d 3 h."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes >= 2 else f"{whole} s"


def plain(value: Any) -> str:
    """Write any JSON value for a table, escaped."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value) if abs(value) < 10**15 else text(value)
    if isinstance(value, float):
        return real(value)
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{text(key)} {plain(inner)}" for key, inner in value.items())
    return "\N{EN DASH}" if value is None else own(value)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of ready HTML whose first column names the rows."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return (
        f'<div class="scroll"><table><caption class="unseen">{caption}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def words(name: str) -> str:
    """Return a key as a label: ``source_tokens`` is "source tokens"."""
    return text(name.replace("_", " "))


def clip(value: Any, most: int) -> str:
    """Return text of at most ``most`` letters and a word on how many more there are."""
    whole = str(value)
    if len(whole) <= most:
        return whole
    return f"{whole[:most]}\N{HORIZONTAL ELLIPSIS} [{len(whole) - most:,} more letters]"


def within(parts: Iterable[str], room: int) -> list[str]:
    """Return the first parts, at least one, that take ``room`` letters together."""
    kept: list[str] = []
    for part in parts:
        room -= len(part)
        if room < 0 and kept:
            break
        kept.append(part)
    return kept


def rest_note(number: int, what: str, file: str) -> str:
    """Say how many are not shown and where to find them; nothing if all are shown."""
    if number <= 0:
        return ""
    rest = f"Another {what} is" if number == 1 else f"Another {number:,} {what}s are"
    return f'<p class="note">{rest} in {file}.</p>'
