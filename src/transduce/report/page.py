"""The report of a run: one page that opens from the disk with the network off."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from transduce import __version__
from transduce.folder import write_text
from transduce.report.markup import count, duration, own, real, score, short, text
from transduce.report.results import final_scores, metric_name
from transduce.report.run import Run, number, read, record
from transduce.report.sections import best_validation, points, sections

MOST_FIGURES = 6


def write(run: Path) -> Path:
    """Write ``report.html`` into a run folder from the files that are there, and return its path.

    Raises:
        Problem: there is no such folder.
    """
    path = run / "report.html"
    # half of a surrogate pair is possible in JSON and nowhere else
    write_text(path, page(read(run)).encode("utf-8", "replace").decode("utf-8"))
    return path


def page(run: Run) -> str:
    """Return the whole page."""
    parts = sections(run)
    links = "".join(f'<a href="#{part.anchor}">{part.title}</a>' for part in parts)
    links = f'<nav aria-label="Sections">{links}</nav>' if links else ""
    body = "".join(
        f'<section id="{part.anchor}"><header><h2>{part.title}</h2><p>{part.about}</p></header>'
        f"<div>{part.content}</div></section>"
        for part in parts
    )
    style = files("transduce.report").joinpath("style.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        # the browser itself refuses what the page must not do: run scripts, fetch anything
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{text(run.title)} \N{MIDDLE DOT} run report</title><style>{style}</style></head>"
        f'<body><header class="top">{_head(run)}{links}</header><main>{body}</main>'
        f"<footer>Written by Transduce {__version__} from the files of the run folder.</footer>"
        "</body></html>\n"
    )


def _head(run: Run) -> str:
    figures = "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>"
        for name, value, more in list(_figures(run))[:MOST_FIGURES]
    )
    notes = "".join(f"<li>{own(note)}</li>" for note in run.notes)
    missing = f'<aside aria-label="What is missing"><ul>{notes}</ul></aside>' if notes else ""
    return (
        '<p class="overline">Transduce \N{MIDDLE DOT} run report</p>'
        f"<h1>{own(run.title)}</h1>"
        f'<p class="deck">{_deck(run)}</p><dl class="figures">{figures}</dl>{missing}'
    )


def _deck(run: Run) -> str:
    """Say what was trained on what for how long, as far as the files tell."""
    model = record(run.experiment.get("model"))
    kinds = {part: _kind(model.get(part)) for part in ("encoder", "decoder")}
    facts = [f"{own(kind)} {part}" for part, kind in kinds.items() if kind]
    if parameters := number(run.data.get("parameters")):
        facts.append(f"{short(parameters)} parameters")
    model_sentence = f"{', '.join(facts)}. " if facts else ""
    if not run.steps:
        return f"{model_sentence}No training step has been recorded."
    last = run.steps[-1]
    trained = "Trained"
    if examples := number(record(run.data.get("train")).get("examples")):
        trained += f" on {count(examples)} examples"
    trained += f" for {count(last['step'])} steps"
    if (epoch := number(last.get("epoch"))) is not None:
        trained += f" (epoch {count(epoch + 1)})"
    if seconds := number(last.get("seconds")):
        trained += f" in {duration(seconds)}"
    unfinished = " No final scores: still training, or stopped before the end."
    return f"{model_sentence}{trained}.{'' if final_scores(run.scores) else unfinished}"


def _kind(part: object) -> str | None:
    """Return which choice fills a slot: a word, or the ``kind`` of a mapping."""
    kind = part.get("kind") if isinstance(part, dict) else part
    return kind if isinstance(kind, str) else None


def _figures(run: Run) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and small print of the numbers that matter most, as HTML."""
    for corpus, metrics in final_scores(run.scores).items():
        for key, entry in metrics.items():
            low, high = number(entry.get("low")), number(entry.get("high"))
            interval = ""
            if low is not None and high is not None:
                interval = f"{score(low)}\N{EN DASH}{score(high)}"
            name = f"{own(corpus)} {text(metric_name(key, entry))}"
            yield name, score(number(entry["value"]) or 0.0), interval
    if best := best_validation(run):
        for key, value in record(best.get("scores")).items():
            if (found := number(value)) is not None:
                name = f"best validation {text(metric_name(key))}"
                yield name, real(found), f"step {count(best['step'])}"
    speeds = [value for _, value in points(run.steps, "step", "tokens_per_second")[0]]
    if speeds:
        yield "target tokens a second", short(sorted(speeds)[len(speeds) // 2]), "median"
