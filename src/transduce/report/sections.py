"""The sections of a report, each made of what the run folder has for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from transduce.report.charts import Axis, Line, Point, chart
from transduce.report.heatmap import heat_map
from transduce.report.markup import (
    count,
    duration,
    own,
    plain,
    real,
    rest_note,
    short,
    table,
    text,
    within,
    words,
)
from transduce.report.results import metric_name, result_tables
from transduce.report.run import Record, Run, number, record
from transduce.report.samples import cards

MAP_ROOM = 300_000  # letters of all attention maps together
MOST_VALIDATIONS = 200  # rows of their table
STEP = Axis("step", count, short, zero=True)
NAMED = ['<span class="unseen">name</span>', '<span class="unseen">value</span>']


@dataclass(frozen=True)
class Section:
    """A title, a sentence about it, and ready HTML."""

    anchor: str
    title: str
    about: str
    content: str


def sections(run: Run) -> list[Section]:
    """Return the sections that have something to show."""
    made = [
        Section(
            "scores",
            "Scores",
            "On data the model never saw. The interval covers 95\N{NO-BREAK SPACE}% of resampled"
            " test sets; the signature says how to get the same number.",
            result_tables(run.scores, run.title),
        ),
        Section(
            "training",
            "Training",
            "Point at a curve to read it. Of very many records, a point is the mean of neighbours"
            " and the band their range. The ringed validation is the best one.",
            _training(run),
        ),
        Section(
            "predictions",
            "Predictions",
            "The same examples at every validation. Words that changed since the row above are"
            " marked; a thin line stands where words went away.",
            cards(run.samples),
        ),
        Section(
            "attention",
            "Attention",
            "How much each target piece (row) looked at each source piece (column):"
            f" {_shades()}, from none to all of its attention.",
            _attention(run),
        ),
        Section("data", "Data", "What was read, in pieces of the vocabulary.", _data(run)),
        Section(
            "configuration",
            "Configuration",
            "Every setting of the run, those left at their defaults too.",
            _configuration(run),
        ),
        Section("environment", "Environment", "Where it ran.", _environment(run)),
    ]
    return [section for section in made if section.content]


def points(records: Sequence[Record], across: str, up: str) -> tuple[list[Point], int]:
    """Return the points that can be drawn, and how many cannot (infinite or not a number)."""
    found, lost = [], 0
    for entry in records:
        x, y = number(entry.get(across)), number(entry.get(up))
        if x is not None and y is not None:
            found.append((x, y))
        else:
            lost += isinstance(entry.get(up), float)
    return found, lost


def best_validation(run: Run) -> Record | None:
    """Return the validation that was kept."""
    return next((entry for entry in reversed(run.validations) if entry.get("best") is True), None)


def _training(run: Run) -> str:
    scores = [{**record(v.get("scores")), "step": v["step"]} for v in run.validations]
    best = best_validation(run)
    small = []
    for key in dict.fromkeys(key for entry in scores for key in entry):
        if key not in ("loss", "step"):
            line = _validation(scores, key, best)
            small.append(_draw(f"Validation {metric_name(key)}", "", [line], _spread([line], 4)))
    rate = Line("learning rate", points(run.steps, "step", "learning_rate")[0])
    small.append(_draw("Learning rate", "", [rate], Axis("", real, real, zero=True)))
    norm = Line("gradient norm", points(run.steps, "step", "gradient_norm")[0])
    small.append(_draw("Gradient norm", "", [norm], _spread([norm], 10)))
    small.append(_speed(run))
    lost = "".join(
        _lost(points(run.steps, "step", key)[1], name)
        for key, name in (("loss", "loss"), ("gradient_norm", "gradient norm"))
    )
    grid = "".join(small)
    grid = f'<div class="grid">{grid}</div>' if grid else ""
    return _loss(run, scores, best) + lost + grid + _validations(run)


def _loss(run: Run, scores: Sequence[Record], best: Record | None) -> str:
    objective, _ = points(run.steps, "step", "loss")
    training, _ = points(run.steps, "step", "nll")
    lines = [Line("training", training or objective), _validation(scores, "loss", best)]
    if training and objective != training:
        lines.append(Line("training objective", objective, "third"))
    return _draw("Loss", "nats per target token", lines, _spread(lines, 4))


def _speed(run: Run) -> str:
    found, _ = points(run.steps, "seconds", "tokens_per_second")
    longest = max((x for x, _ in found), default=0.0)
    name, size = ("seconds", 1) if longest < 180 else ("minutes", 60)
    if longest > 3 * 3600:
        name, size = "hours", 3600
    line = Line("speed", [(x / size, y) for x, y in found])
    axis = Axis("", short, short, zero=True)
    return _draw("Speed", "target tokens a second", [line], axis, Axis(name, real, real, zero=True))


def _spread(lines: Sequence[Line], ratio: float) -> Axis:
    """Return a logarithmic axis where the highest value is ``ratio`` times the usual one."""
    values = [value for line in lines for _, value in line.points]
    wide = bool(values) and min(values) > 0 and max(values) > ratio * median(values)
    return Axis("", real, real, logarithmic=wide)


def _validation(scores: Sequence[Record], key: str, best: Record | None) -> Line:
    found, _ = points(scores, "step", key)
    ring = next((point for point in found if best and point[0] == best["step"]), None)
    return Line("validation", found, "second", dots=True, best=ring)


def _draw(
    title: str,
    unit: str,
    lines: Sequence[Line],
    up: Axis,
    across: Axis = STEP,
) -> str:
    return chart(title, unit, lines, across, up) if any(line.points for line in lines) else ""


def _lost(lost: int, what: str) -> str:
    if not lost:
        return ""
    records = "1 record has" if lost == 1 else f"{lost:,} records have"
    return f'<p class="note">{records} a {what} that is not a finite number; not drawn.</p>'


def _validations(run: Run) -> str:
    if not run.validations:
        return ""
    shown = run.validations[-MOST_VALIDATIONS:]
    keys = list(dict.fromkeys(key for v in shown for key in record(v.get("scores"))))
    rows = []
    for entry in shown:
        seconds = number(entry.get("seconds"))
        values = record(entry.get("scores"))
        kept = ' <span class="right">best</span>' if entry.get("best") is True else ""
        time = "\N{EN DASH}" if seconds is None else duration(seconds)
        rows.append([count(entry["step"]) + kept, time, *(plain(values.get(key)) for key in keys)])
    head = ["step", "time", *(text(metric_name(key)) for key in keys)]
    earlier = rest_note(len(run.validations) - len(rows), "earlier validation", "train.jsonl")
    return (
        "<details><summary>Validations as a table</summary>"
        f"{table('Validation scores', head, rows)}{earlier}</details>"
    )


def _shades() -> str:
    return '<span class="shades" role="img" aria-label="light to dark"></span>'


def _attention(run: Run) -> str:
    maps = within((heat_map(map_, n) for n, map_ in enumerate(run.attention, start=1)), MAP_ROOM)
    rest = rest_note(len(run.attention) - len(maps), "map", "attention.json")
    return f'<div class="maps">{"".join(maps)}</div>{rest}' if maps else ""


def _data(run: Run) -> str:
    corpora = {name: _flat(part) for name, part in run.data.items() if "examples" in record(part)}
    keys = dict.fromkeys(key for part in corpora.values() for key in part)
    rows = [[words(key), *(_counted(part, key) for part in corpora.values())] for key in keys]
    head = [NAMED[0], *map(own, corpora)]
    counts = table("Corpora", head, rows) if corpora else ""
    rest = _flat({key: value for key, value in run.data.items() if key not in corpora})
    others = [[words(key), plain(value)] for key, value in rest.items()]
    return counts + (table("Sizes", NAMED, others) if others else "")


def _flat(values: Record) -> Record:
    """Return an object without objects in it: ``skipped: {empty: 2}`` is "skipped, empty"."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        inner = value if isinstance(value, dict) and value else None
        flat |= (
            {f"{key}, {name}": entry for name, entry in inner.items()} if inner else {key: value}
        )
    return flat


def _counted(part: Record, key: str) -> str:
    """Write a count; of unknown symbols also their share of the tokens."""
    tokens = number(part.get(key.replace("unknown_", "") + "_tokens"))
    unknown = number(part.get(key))
    if key.startswith("unknown_") and tokens and unknown:
        return f"{count(unknown)} <small>{100 * unknown / tokens:.2g}\N{NO-BREAK SPACE}%</small>"
    return plain(part.get(key))


def _configuration(run: Run) -> str:
    if run.configuration is None:
        return ""
    lines = (_coloured(line) for line in run.configuration.rstrip("\n").split("\n"))
    return (
        "<details><summary>experiment.yaml</summary>"
        f'<pre tabindex="0"><code>{"<br>".join(lines)}</code></pre></details>'
    )


def _coloured(line: str) -> str:
    """Set off the key of a line of YAML, and its comment where no quotation mark clouds it."""
    found = re.match(r"(\s*(?:- )*)([\w.-]+:(?=\s|$))?", line)
    dash, key = found.groups("") if found else ("", "")
    rest = line[len(dash) + len(key) :]
    at = None if {'"', "'"} & set(rest) else re.search(r"(?:^|\s)#", rest)
    value, comment = (rest[: at.start()], rest[at.start() :]) if at else (rest, "")
    return f"{text(dash)}<b>{text(key)}</b>{text(value)}<i>{text(comment)}</i>"


def _environment(run: Run) -> str:
    rows = [[words(key), plain(value)] for key, value in _flat(run.environment).items()]
    return table("Environment", NAMED, rows) if rows else ""
