"""Attention as a heat map: a row for every target piece, a column for every source piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import fsum
from unicodedata import east_asian_width

from transduce.report.markup import own, table, text
from transduce.report.run import Record, items, number

LEVELS = 20  # shades
CELL = 22.0  # pixels of a row, and of a column where there are not very many
WIDEST = 900.0
MOST_COLUMNS = 180  # more source pieces (frames of sound) are added up in groups
MOST_ROWS = 80
LONGEST_LABEL = 24  # letters; the table below has them all
LETTER = 7.2  # pixels a letter takes at most, on average; a wide one (Han, kana) takes 12


@dataclass(frozen=True)
class Attention:
    """Weights of target by source pieces, each between 0 and 1."""

    source: Sequence[str]
    target: Sequence[str]
    weights: Sequence[Sequence[float]]

    def strongest(self, row: int, most: int = 3) -> str:
        """Say which source pieces a target piece looked at."""
        weights = self.weights[row]
        order = sorted(range(len(weights)), key=lambda x: -weights[x])[:most]
        named = [f"{self.source[x]} {100 * weights[x]:.0f}\N{NO-BREAK SPACE}%" for x in order]
        return ", ".join(named)


def heat_map(example: Record, place: int) -> str:
    """Return the figure of one example of attention.json, or a line that says why there is none."""
    found = _read(example)
    if found is None:
        return f'<p class="note">Attention map {place}: pieces and weights do not fit together.</p>'
    facts = [f"{len(found.target):,} target by {len(found.source):,} source pieces"]
    group = -(-len(found.source) // MOST_COLUMNS)
    if group > 1:
        facts.append(f"a column is the sum of {group}")
    if len(found.target) > MOST_ROWS:
        facts.append(f"the first {MOST_ROWS} rows")
    shown = _reduced(found, group)
    rows = [[own(piece), own(shown.strongest(y))] for y, piece in enumerate(shown.target)]
    title = f"Attention map {place}"
    return (
        f'<figure class="map"><figcaption><b>{title}</b>'
        f' <span class="unit">{"; ".join(facts)}</span></figcaption>'
        f'<div class="scroll">{_picture(title, shown)}</div>'
        "<details><summary>Strongest sources in words</summary>"
        f"{table(f'{title}: strongest sources', ['target', 'strongest sources'], rows)}"
        "</details></figure>"
    )


def _read(example: Record) -> Attention | None:
    source = [str(piece) for piece in items(example.get("source"))]
    target = [str(piece) for piece in items(example.get("target"))]
    rows = [[number(weight) for weight in items(row)] for row in items(example.get("weights"))]
    weights = [[weight for weight in row if weight is not None] for row in rows]
    fits = [len(row) for row in weights] == [len(source)] * len(target)
    return Attention(source, target, weights) if source and target and fits else None


def _reduced(whole: Attention, group: int) -> Attention:
    """Add up ``group`` neighbouring columns, and keep the first rows."""
    starts = range(0, len(whole.source), group)
    weights = whole.weights[:MOST_ROWS]
    return Attention(
        [whole.source[start] for start in starts],
        whole.target[:MOST_ROWS],
        [[fsum(row[start : start + group]) for start in starts] for row in weights],
    )


def _picture(title: str, shown: Attention) -> str:
    cell = min(CELL, WIDEST / len(shown.source))
    width, height = cell * len(shown.source), CELL * len(shown.target)
    left = 16 + max(map(_width, shown.target))
    top = 18 + 0.82 * max(map(_width, shown.source))  # of slanted labels, the sine
    over = 16 + 0.6 * _width(shown.source[-1])  # and the cosine
    looked = "; ".join(f"{piece}: {shown.strongest(y, 1)}" for y, piece in enumerate(shown.target))
    return (
        f'<svg role="img" width="{left + width + over:.0f}" height="{top + height + 8:.0f}">'
        f"<title>{title}</title><desc>{text(looked)}</desc>"
        f'<g transform="translate({left:.0f} {top:.0f})">'
        f'<rect class="field" width="{width:.1f}" height="{height:.1f}"/>'
        f'<svg class="heat" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none"'
        f' viewBox="0 -.5 {len(shown.source)} {len(shown.target)}">{_cells(shown.weights)}</svg>'
        f"{_columns(shown.source, cell)}{_rows(shown, width)}</g></svg>"
    )


def _cells(weights: Sequence[Sequence[float]]) -> str:
    """Return one path for each shade, of strokes as high as a row: half the size of rectangles."""
    shades: list[list[str]] = [[] for _ in range(LEVELS + 1)]
    for y, row in enumerate(weights):
        x = 0
        for level, run in groupby(round(LEVELS * min(1.0, max(0.0, weight))) for weight in row):
            length = len(list(run))
            shades[level].append(f"M{x} {y}h{length}")
            x += length
    return "".join(
        f'<path stroke-opacity="{level / LEVELS:.2g}" d="{"".join(cells)}"/>'
        for level, cells in enumerate(shades)
        if level and cells
    )


def _columns(source: Sequence[str], cell: float) -> str:
    every = max(1, round(14 / cell))  # names closer than 14 pixels would overlap
    return "".join(
        f'<text class="piece" transform="translate({(x + 0.5) * cell + 4:.1f} -8) rotate(-55)">'
        f"{_label(piece)}</text>"
        for x, piece in enumerate(source)
        if x % every == 0
    )


def _rows(shown: Attention, width: float) -> str:
    return "".join(
        f'<g class="row"><title>{text(f"{piece}: {shown.strongest(y)}")}</title>'
        f'<rect y="{y * CELL:g}" width="{width:.1f}" height="{CELL:g}"/>'
        f'<text class="piece" x="-8" y="{(y + 0.5) * CELL:g}" dy=".32em" text-anchor="end">'
        f"{_label(piece)}</text></g>"
        for y, piece in enumerate(shown.target)
    )


def _width(piece: str) -> float:
    wide = sum(east_asian_width(letter) in "WF" for letter in piece[:LONGEST_LABEL])
    return LETTER * min(LONGEST_LABEL, len(piece)) + (12 - LETTER) * wide


def _label(piece: str) -> str:
    if len(piece) <= LONGEST_LABEL:
        return text(piece)
    return f"{text(piece[: LONGEST_LABEL - 1])}\N{HORIZONTAL ELLIPSIS}"
