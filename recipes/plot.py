"""One picture: a line for each recipe over groups of sources, named at its end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from transduce.report.charts import Axis, scale
from transduce.report.markup import score, text

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 48, 150, 40, 52
APART = 15  # between the names of two lines
STYLE = (
    "text{font:12px sans-serif;fill:#1d1c1a}text.soft{fill:#615d56}.rule{stroke:#e5e1d9}"
    "polyline{fill:none;stroke-width:2}rect{fill:#fbfaf7}"
    "polyline.family0{stroke:#76716a;stroke-dasharray:2 3}text.family0{fill:#76716a}"
    "polyline.family1{stroke:#b34700;stroke-dasharray:6 3}text.family1{fill:#b34700}"
    "polyline.family2{stroke:#0b61a4}text.family2{fill:#0b61a4}"
)


class Line(NamedTuple):
    """Values of one recipe; lines of a family share colour and stroke."""

    name: str
    family: int
    values: Sequence[float]


def plot(title: str, across: str, groups: Sequence[str], lines: Sequence[Line]) -> str:
    """Return a picture (SVG) of lines over groups."""
    every = [value for line in lines for value in line.values]
    up = scale(every, Axis("BLEU", score, score, zero=True))
    columns = [
        LEFT + (WIDTH - LEFT - RIGHT) * at / max(1, len(groups) - 1) for at in range(len(groups))
    ]

    def height(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - up.place(value))

    parts = [_text(LEFT, 20, title)]
    for tick in up.ticks:
        at = height(tick)
        parts.append(f'<path class="rule" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{tick:g}", "soft", "end"))
    for x, group in zip(columns, groups, strict=True):
        parts.append(_text(x, HEIGHT - BOTTOM + 18, group, "soft", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, across, "soft", "middle"))
    ends = _spread([height(line.values[-1]) for line in lines])
    for line, end in zip(lines, ends, strict=True):
        points = (f"{x:.1f},{height(v):.1f}" for x, v in zip(columns, line.values, strict=True))
        parts.append(f'<polyline class="family{line.family}" points="{" ".join(points)}"/>')
        parts.append(_text(WIDTH - RIGHT + 10, end + 4, line.name, f"family{line.family}"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{text(title)}</title><style>{STYLE}</style>"
        f'<rect width="{WIDTH}" height="{HEIGHT}"/>' + "\n".join(parts) + "</svg>\n"
    )


def _text(x: float, y: float, content: str, role: str = "", anchor: str = "start") -> str:
    named = f' class="{role}"' if role else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(content)}</text>'


def _spread(heights: Sequence[float]) -> list[float]:
    """Move names apart that would lie on one another, downwards, and back up from the bottom."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for above, place in pairwise(order):
        moved[place] = max(moved[place], moved[above] + APART)
    lowest = float(HEIGHT - BOTTOM)
    for place in reversed(order):
        moved[place] = lowest = min(moved[place], lowest)
        lowest -= APART
    return moved
