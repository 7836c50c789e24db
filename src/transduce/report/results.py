"""Final scores beside published ones: a table with an interval plot for each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transduce.report.charts import Axis, Scale, percent, scale
from transduce.report.markup import own, real, score, text
from transduce.report.run import Record, items, number, record

NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "rouge": "ROUGE-L",
    "wer": "WER",
    "cer": "CER",
    "per": "PER",
    "exact": "exact match",
    "sequence_error": "sequence error",
    "loss": "loss",
    "nll": "negative log-likelihood",
    "perplexity": "perplexity",
}


@dataclass(frozen=True)
class Result:
    """One system's score."""

    system: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = False


def metric_name(key: str, entry: Record | None = None) -> str:
    """Return how a metric is written in print."""
    name = (entry or {}).get("name")
    return name if isinstance(name, str) else NAMES.get(key.casefold(), key.replace("_", " "))


def final_scores(scores: Record) -> Mapping[str, Mapping[str, Record]]:
    """Return corpus, metric, entry for every final score that has a value."""
    found = {}
    for corpus, metrics in scores.items():
        entries = {key: record(entry) for key, entry in record(metrics).items()}
        kept = {key: e for key, e in entries.items() if number(e.get("value")) is not None}
        if kept:
            found[corpus] = kept
    return found


def result_tables(scores: Record, run: str) -> str:
    """Return a table for each metric of each corpus; published scores stand beside the test's."""
    parts = []
    for corpus, metrics in final_scores(scores).items():
        parts.append(f"<h3>{own(corpus)}</h3>")
        for key, entry in metrics.items():
            published = _published(scores, key) if corpus == "test" else []
            parts.append(
                _table(metric_name(key, entry), entry, [_own_result(entry, run), *published])
            )
    return "".join(parts)


def _own_result(entry: Record, run: str) -> Result:
    value = number(entry.get("value")) or 0.0
    return Result(run, value, number(entry.get("low")), number(entry.get("high")), ours=True)


def _published(scores: Record, key: str) -> list[Result]:
    found = []
    for entry in map(record, items(scores.get("published"))):
        value = number(entry.get("value"))
        if str(entry.get("metric")).casefold() == key.casefold() and value is not None:
            found.append(Result(str(entry.get("name", "published")), value))
    return found


def _table(name: str, entry: Record, results: Sequence[Result]) -> str:
    better = entry.get("higher_is_better")
    better = better if isinstance(better, bool) else None
    arrow = "" if better is None else f"{'higher' if better else 'lower'} is better"
    results = sorted(results, key=lambda result: result.value, reverse=better is not False)
    values = [v for r in results for v in (r.value, r.low, r.high) if v is not None]
    spread = scale(values, Axis(name, real, real))
    rows = "".join(_row(result, spread) for result in results)
    signature = entry.get("signature")
    signed = f'<p class="signature">{text(signature)}</p>' if signature else ""
    return (
        f'<table class="scores" role="table"><caption><b>{text(name)}</b><span class="unit">{arrow}'
        '</span></caption><thead role="rowgroup"><tr role="row">'
        '<th role="columnheader" scope="col">system</th>'
        '<th role="columnheader" scope="col">score</th>'
        '<th role="columnheader" scope="col">95&nbsp;% interval</th>'
        f'<th role="columnheader" scope="col" class="strip">{_ticks(spread)}</th></tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>{signed}'
    )


def _row(result: Result, spread: Scale) -> str:
    known = result.low is not None and result.high is not None
    low, high = (result.low or 0.0, result.high or 0.0) if known else (result.value, result.value)
    interval = f"{score(low)}\N{EN DASH}{score(high)}" if known else "\N{EN DASH}"
    grid = "".join(
        f'<line class="rule" x1="{at}" x2="{at}" y2="100%"/>'
        for at in (percent(spread.place(tick)) for tick in spread.ticks)
    )
    bar = (
        f'<line class="bar" x1="{percent(spread.place(low))}" x2="{percent(spread.place(high))}"'
        ' y1="50%" y2="50%"/>'
    )
    dot = f'<circle r="5" cx="{percent(spread.place(result.value))}" cy="50%"/>'
    return (
        f'<tr role="row" class="{"ours" if result.ours else "theirs"}">'
        f'<th role="rowheader" scope="row">{own(result.system)}'
        f"{'<small>this run</small>' if result.ours else ''}</th>"
        f'<td role="cell">{score(result.value)}</td><td role="cell">{interval}</td>'
        f'<td role="cell" class="strip"><svg aria-hidden="true">{grid}{bar if known else ""}{dot}'
        "</svg></td></tr>"
    )


def _ticks(spread: Scale) -> str:
    return (
        '<span class="unseen">plot</span><svg aria-hidden="true">'
        + "".join(
            f'<text class="tick" x="{percent(spread.place(tick))}" y="50%" dy=".32em"'
            f' text-anchor="middle">{text(real(tick))}</text>'
            for tick in spread.ticks
        )
        + "</svg>"
    )
