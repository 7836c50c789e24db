"""Print finished runs with one test set as a table: the first, and what the others change.

    python recipes/table.py --data FOLDER RUN RUN ...

FOLDER is where the paths of their data start. Differences are those of the first metric, by paired
bootstrap. With --speed N the runs also answer the first N test sources, in turns, each with its own
search on one thread, and the first 32 of these one at a time; the better of two turns counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from transduce.blueprint import read
from transduce.data.batch import Example
from transduce.data.lines import Skipped
from transduce.evaluate import compare
from transduce.experiment import Experiment
from transduce.folder import read_json
from transduce.problem import Problem
from transduce.report import run as records
from transduce.report.markup import score
from transduce.transducer import Transducer

ALONE: Final = 32  # sources that are answered one at a time
ROUNDS: Final = 2  # measured turns of each run

Score = dict[str, Any]


class Finished(NamedTuple):
    """What a run has left behind."""

    folder: Path
    experiment: Experiment
    parameters: int
    updates: int
    minutes: float
    environment: dict[str, Any]
    scores: dict[str, Score]  # of the test set, by metric
    predictions: list[str]


def read_run(run: Path) -> Finished:
    """Read a run.

    Raises:
        Problem: it has no scores of a test set.
    """
    report = records.read(run)
    if not report.scores.get("test") or not (run / "test.predictions.txt").exists():
        raise Problem("this run has scored no test set; train it to its end", str(run))
    return Finished(
        run,
        read(run / "experiment.yaml", Experiment),
        report.data["parameters"],
        report.steps[-1]["step"],
        report.steps[-1]["seconds"] / 60,
        dict(report.environment),
        read_json(run / "scores.json")["test"],
        (run / "test.predictions.txt").read_bytes().decode().split("\n")[:-1],
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """Return a Markdown table whose first columns hold words and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def within(found: Score) -> str:
    """Write a score with its interval."""
    return f"{score(found['value'])} [{score(found['low'])}, {score(found['high'])}]"


def circumstances(runs: Sequence[Finished]) -> str:
    """Return when and where runs were trained, and the signatures of their scores."""
    days = sorted({run.environment["started"][:10] for run in runs})
    machines = sorted(
        f"{run.environment['cpu']}, {run.environment['threads']} thread, "
        f"torch {run.environment['torch']}, {run.environment['precision']}"
        for run in runs
    )
    signatures = " and ".join(f"`{found['signature']}`" for found in runs[0].scores.values())
    return (
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}; {'; '.join(dict.fromkeys(machines))}. "
        f"Signatures: {signatures}. The intervals are those of resampled test sets, not of other "
        "seeds."
    )


def examples(run: Finished, data: Path) -> list[Example]:
    """Return the test set of a run."""
    assert run.experiment.data.test
    return list(run.experiment.data.test.read(data, Skipped()))


def difference(run: Finished, first: Finished, references: Sequence[Sequence[str]]) -> str:
    """Write what the first metric has gained against the first run."""
    metric = first.experiment.metrics[0].build()
    found = compare([metric], run.predictions, first.predictions, references)[0]
    return f"{found.difference:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def speeds(runs: Sequence[Finished], tests: Sequence[Sequence[Example]]) -> list[list[str]]:
    """Return tokens of answers per second of the processor, and milliseconds for one at a time."""
    torch.set_num_threads(1)
    models = [Transducer.load(run.folder, device="cpu") for run in runs]
    lines = [[example.sources["source"] for example in test] for test in tests]
    best = [(float("inf"), float("inf"))] * len(runs)
    tokens = [0] * len(runs)
    for turn in range(1 + ROUNDS):  # the first warms up
        for place, (model, mine) in enumerate(zip(models, lines, strict=True)):
            begun = time.process_time()
            tokens[place] = sum(len(result.tokens) for result in model.predict(mine))
            together = time.process_time() - begun
            for line in mine[:ALONE]:
                model(line)
            alone = time.process_time() - begun - together
            if turn:
                best[place] = min(best[place][0], together), min(best[place][1], alone)
    return [
        [f"{count / together:,.0f}", f"{alone / len(mine[:ALONE]) * 1e3:.1f}"]
        for count, (together, alone), mine in zip(tokens, best, lines, strict=True)
    ]


def table(runs: Sequence[Finished], data: Path, timed: int) -> str:
    """Return the table, and what belongs to it.

    Raises:
        Problem: the runs have other test sets or metrics than the first.
    """
    first, tests = runs[0], [examples(run, data) for run in runs]
    references = [example.references for example in tests[0]]
    for run, test in zip(runs, tests, strict=True):
        same = [example.references for example in test] == references
        if not same or run.experiment.metrics != first.experiment.metrics:
            what = f"its test set or its metrics are not those of {first.folder}"
            raise Problem(f"{what}; give it another table", str(run.folder))
    names = list(first.scores)
    shown = [first.scores[name]["name"] for name in names]
    head = ["run", "parameters", "updates", "minutes", shown[0], f"against {first.folder.name}"]
    head += [*shown[1:], *(["tokens per CPU-s", "ms a line alone"] if timed else ())]
    measured = speeds(runs, [test[:timed] for test in tests]) if timed else [[]] * len(runs)
    rows = [
        [
            run.folder.name,
            f"{run.parameters / 1e6:.2f} M",
            f"{run.updates:,}",
            f"{run.minutes:.1f}",
            within(run.scores[names[0]]),
            "" if run is first else difference(run, first, references),
            *(score(run.scores[name]["value"]) for name in names[1:]),
            *speed,
        ]
        for run, speed in zip(runs, measured, strict=True)
    ]
    search = first.experiment.search
    return (
        f"{markdown(head, rows, words=1)}\n\n{len(references):,} test sources; {search.kind} "
        "search. Minutes are those of a run's own updates, by the clock, without those of what it "
        f"begins from. {circumstances(runs)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    parser.add_argument("--data", type=Path, required=True, help="where the data's paths start")
    parser.add_argument("--speed", type=int, default=0, metavar="N", help="test sources to time")
    given = parser.parse_args()
    try:
        print(table([read_run(run) for run in given.runs], given.data, given.speed))
    except Problem as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
