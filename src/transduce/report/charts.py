"""Line charts as inline SVG, drawn in percent so that their text keeps its size on every screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from transduce.report.markup import text

Point = tuple[float, float]
MOST_POINTS = 120  # of a line; more are averaged
MOST_DOTS = 40
LEAST = 1e-90  # below this a value is nothing


@dataclass(frozen=True)
class Line:
    """Points in the order of x; ``role`` is colour and stroke, ``best`` a point to be ringed."""

    name: str
    points: Sequence[Point]
    role: Literal["first", "second", "third"] = "first"
    dots: bool = False
    best: Point | None = None


@dataclass(frozen=True)
class Axis:
    """How values are written, in full and as ticks, and spread; ``zero`` starts the axis there."""

    name: str
    write: Callable[[float], str]
    tick: Callable[[float], str]
    zero: bool = False
    logarithmic: bool = False


@dataclass(frozen=True)
class Scale:
    """Places values between 0 and 1."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Bucket:
    """Neighbouring points as one: their last x, mean, lowest and highest y."""

    x: float
    mean: float
    low: float
    high: float


def chart(title: str, unit: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """Return a figure of lines over a common x; a line without points is left out."""
    lines = [line for line in lines if line.points]
    buckets = [thin(line.points) for line in lines]
    across = scale([b.x for row in buckets for b in row], x, whole_ticks=False)
    up = scale([v for row in buckets for b in row for v in (b.low, b.high)], y)
    drawn = [_line(line, row, across, up) for line, row in zip(lines, buckets, strict=True)]
    facts = [unit] if unit else []
    facts += ["logarithmic"] if y.logarithmic else []
    keys = (f'<span class="key {line.role}"><i></i>{text(line.name)}</span>' for line in lines)
    legend = f'<span class="legend">{"".join(keys)}</span>' if len(lines) > 1 else ""
    return (
        f'<figure class="chart"><figcaption><b>{text(title)}</b>'
        f' <span class="unit">{text("; ".join(facts))}</span>'
        f"{legend}</figcaption>"
        f'<div class="plot"><svg role="img"><title>{text(title)}</title>'
        f"<desc>{text(_describe(lines, x, y))}</desc>"
        f"{_frame(across, up, x, y)}{''.join(drawn)}{_hovers(lines, buckets, (across, up), (x, y))}"
        "</svg></div></figure>"
    )


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Bucket]:
    """Join neighbours until at most ``most`` are left."""
    size = max(1, math.ceil(len(points) / most))
    rows = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        values = [value for _, value in group]
        rows.append(Bucket(group[-1][0], math.fsum(values) / len(values), min(values), max(values)))
    return rows


def scale(values: Sequence[float], axis: Axis, whole_ticks: bool = True) -> Scale:
    """Return a scale for the values; with ``whole_ticks`` it begins and ends at a tick."""
    low, high = min(values), max(values)
    if axis.logarithmic:
        return _logarithmic(low, high)
    low = min(low, 0.0) if axis.zero else low
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size < LEAST:
        margin = 0.1 * size if size > LEAST else 1.0
        low, high = (low if axis.zero else low - margin), high + margin
    step = _tick_step(high - low)
    if whole_ticks:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, tuple(number * step for number in range(first, last + 1)))


def percent(place: float) -> str:
    """Write a place between 0 and 1."""
    return f"{100 * place:.4g}%"


def _tick_step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, for three to seven ticks."""
    size = 10.0 ** math.floor(math.log10(span / 4))
    return next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 6)


def _logarithmic(low: float, high: float) -> Scale:
    low, high = low / 1.05, high * 1.05
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    powers = range(first, last + 1, max(1, (last - first) // 6))
    ticks = (factor * 10.0**power for power in powers for factor in factors)
    return Scale(low, high, tuple(tick for tick in ticks if low <= tick <= high), True)


def _frame(across: Scale, up: Scale, x: Axis, y: Axis) -> str:
    rows = "".join(
        f'<line class="rule" x2="100%" y1="{at}" y2="{at}"/>'
        f'<text class="tick" x="-8" y="{at}" dy=".32em" text-anchor="end">'
        f"{text(y.tick(tick))}</text>"
        for tick in up.ticks
        for at in [percent(1 - up.place(tick))]
    )
    columns = "".join(
        f'<text class="tick" x="{percent(across.place(tick))}" y="100%" dy="18"'
        f' text-anchor="middle">{text(x.tick(tick))}</text>'
        for tick in across.ticks
    )
    name = (
        f'<text class="tick name" x="100%" y="100%" dy="34" text-anchor="end">{text(x.name)}</text>'
    )
    return f'{rows}<line class="base" x2="100%" y1="100%" y2="100%"/>{columns}{name}'


def _line(line: Line, buckets: Sequence[Bucket], across: Scale, up: Scale) -> str:
    def at(x: float, y: float) -> str:
        return f"{1000 * across.place(x):.1f} {1000 * (1 - up.place(y)):.1f}"

    path = "M" + "L".join(at(b.x, b.mean) for b in buckets)
    band = ""
    if len(line.points) > len(buckets):
        edge = [at(b.x, b.high) for b in buckets] + [at(b.x, b.low) for b in reversed(buckets)]
        band = f'<path class="band" d="M{"L".join(edge)}Z"/>'
    dots = "".join(
        _dot("dot", across.place(b.x), up.place(b.mean))
        for b in buckets
        if (line.dots and len(buckets) <= MOST_DOTS) or len(buckets) == 1
    )
    if line.best:
        dots += _dot("best", across.place(line.best[0]), up.place(line.best[1]))
    return (
        f'<g class="{line.role}"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none"'
        f' width="100%" height="100%">{band}<path class="line" d="{path}"/></svg>{dots}</g>'
    )


def _dot(role: str, across: float, up: float) -> str:
    return f'<circle class="{role}" r="4" cx="{percent(across)}" cy="{percent(1 - up)}"/>'


def _hovers(
    lines: Sequence[Line],
    buckets: Sequence[Sequence[Bucket]],
    scales: tuple[Scale, Scale],
    axes: tuple[Axis, Axis],
) -> str:
    """Return a column for each x that shows, under the pointer, what the lines are there."""
    across, up = scales
    rows = [{b.x: b.mean for b in row} for row in buckets]
    found = sorted({b.x for row in buckets for b in row})
    places = [across.place(x) for x in found]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(places)), 1.0]
    columns = []
    for number, x in enumerate(found):
        left, width = edges[number], edges[number + 1] - edges[number]
        here = [(line, row[x]) for line, row in zip(lines, rows, strict=True) if x in row]
        values = "".join(f" \N{MIDDLE DOT} {line.name} {axes[1].write(y)}" for line, y in here)
        at = percent(places[number])
        dots = "".join(_dot(line.role, places[number], up.place(y)) for line, y in here)
        columns.append(
            f'<g class="at"><rect x="{percent(left)}" width="{percent(width)}" height="100%"/>'
            f'<g><line x1="{at}" x2="{at}" y2="100%"/>{dots}'
            f'<text y="-10">{text(f"{axes[0].name} {axes[0].write(x)}{values}")}</text></g></g>'
        )
    return "".join(columns)


def _describe(lines: Sequence[Line], x: Axis, y: Axis) -> str:
    parts = []
    for line in lines:
        (first, start), (last, end) = line.points[0], line.points[-1]
        (lowest, low), (highest, high) = (
            choose(line.points, key=lambda point: point[1]) for choose in (min, max)
        )
        parts.append(
            f"{line.name}: {y.write(start)} at {x.name} {x.write(first)}, {y.write(end)} at"
            f" {x.write(last)}; lowest {y.write(low)} at {x.write(lowest)}, highest"
            f" {y.write(high)} at {x.write(highest)}."
        )
    return " ".join(parts)
