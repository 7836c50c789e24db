"""What searches find: quality, likelihood, length and time of each on one model and one test set.

For a run (or a model) and a table of tests. The log-probability is that of the whole answer, by the
model itself; the length is that of the answers over that of the references nearest to it, in words.
Beams rank by the mean log-probability of a token (as by default) and, in the table of errors, by
plain log-probability, as exact search does. Time is that of the processor, all threads together.

Exact search proves an answer to be the likeliest there is within the limit of length; what it
cannot prove within its budget is left out of the table of errors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import common
from transduce.bayes_risk import Weights, least_risk
from transduce.data.lines import Skipped
from transduce.evaluate import BleuBlueprint, ChrfBlueprint, evaluate
from transduce.recipe.init import corpus
from transduce.result import Result
from transduce.search import (
    Beam,
    DiverseBeam,
    Exact,
    Greedy,
    PowerNormalisation,
    Sample,
    SearchBlueprint,
    StochasticBeam,
)
from transduce.search.exact import TOLERANCE
from transduce.transducer import Transducer

PLAIN = PowerNormalisation(exponent=0.0)
CANDIDATES = 16  # of minimum Bayes risk


class Found(NamedTuple):
    """What a search answered, and the seconds that it took."""

    results: list[Result]
    seconds: float


Answers = Callable[[Transducer, list[str]], Iterator[Result]]


def simply(search: SearchBlueprint) -> Answers:
    """Return the best that a search finds."""
    return lambda model, lines: model.predict(lines, search)


def by_risk(search: SearchBlueprint, weights: Weights) -> Answers:
    """Return the candidate of the highest expected chrF."""

    def answer(model: Transducer, lines: list[str]) -> Iterator[Result]:
        metric = ChrfBlueprint().build()
        for result in model.predict(lines, search, alternatives=CANDIDATES - 1):
            yield least_risk(result, metric, weights)

    return answer


def ways(widths: Sequence[int], exact: Exact) -> dict[str, Answers]:
    """Return every row of the table."""
    beams = {f"beam {width}": simply(Beam(width=width)) for width in widths}
    plain = {
        f"beam {width}, not normalised": simply(Beam(width=width, normalisation=PLAIN))
        for width in widths
    }
    return {
        "greedy": simply(Greedy()),
        **beams,
        **plain,
        f"exact, {exact.nodes:,} prefixes": simply(exact),
        "sample": simply(Sample()),
        "sample, temperature 0.5": simply(Sample(temperature=0.5)),
        "stochastic beam 5, the likeliest": likeliest(StochasticBeam(width=5)),
        "diverse beam, 3 groups of 2": simply(DiverseBeam(groups=3, width=2)),
        f"risk of {CANDIDATES} from a beam": by_risk(Beam(), "posterior"),
        f"risk of {CANDIDATES} samples": by_risk(Sample(), "uniform"),
    }


def likeliest(search: SearchBlueprint) -> Answers:
    """Return of all answers drawn the one that the model finds likeliest."""

    def answer(model: Transducer, lines: list[str]) -> Iterator[Result]:
        for result in model.predict(lines, search):
            every = (result, *result.alternatives)
            yield max(every, key=lambda one: (one.finished, one.log_prob))

    return answer


def run(model: Transducer, lines: list[str], answers: Answers) -> Found:
    """Answer all lines."""
    begun = time.process_time()
    results = list(answers(model, lines))
    return Found(results, time.process_time() - begun)


def row(name: str, found: Found, references: list[list[str]]) -> list[str]:
    """Return the cells of a search."""
    texts = [result.text for result in found.results]
    metrics = [BleuBlueprint().build(), ChrfBlueprint().build()]
    good = [f"{score.value:.1f}" for score in evaluate(metrics, texts, references, 2)]
    # A search that returned nothing has no log-probability to average.
    likely = [one.log_prob for one in found.results if one.log_prob > -np.inf]
    sizes = [(len(text.split()), others) for text, others in zip(texts, references, strict=True)]
    nearest = [
        min((len(other.split()) for other in others), key=lambda size: abs(size - own))
        for own, others in sizes
    ]
    ratio = sum(size for size, _ in sizes) / sum(nearest)
    cut = sum(not one.finished for one in found.results)
    return [name, *good, f"{np.mean(likely):.2f}", f"{ratio:.2f}", str(cut), f"{found.seconds:.1f}"]


def errors(found: dict[str, Found], exact: Found) -> list[list[str]]:
    """Return how often each search missed the optimum, of those that are proven."""
    proven = [place for place, one in enumerate(exact.results) if one.proven]
    rows = []
    for name, (results, _) in found.items():
        if name.startswith("exact") or not proven:
            continue
        lost = [exact.results[place].log_prob - results[place].log_prob for place in proven]
        missed = [value for value in lost if value > TOLERANCE]
        mean = f"{np.mean(missed):.2f}" if missed else "-"
        rows.append([name, f"{100 * len(missed) / len(proven):.1f} %", mean])
    return rows


def optimum(exact: Found, five: Found) -> str:
    """Say how long the likeliest answers are, and how many say nothing."""
    pairs = zip(exact.results, five.results, strict=True)
    proven = [(best, beam) for best, beam in pairs if best.proven]
    if not proven:
        return "Exact search has proven nothing; raise --nodes."
    blank = sum(not best.text.strip() for best, _ in proven)
    ratio = sum(len(best.tokens) for best, _ in proven) / sum(
        len(beam.tokens) for _, beam in proven
    )
    shorter = sum(len(best.tokens) < len(beam.tokens) for best, beam in proven)
    return (
        f"Proven: {len(proven)} of {len(exact.results)}. Of these the likeliest answer is empty "
        f"{blank} times, has {ratio:.2f} times the symbols of beam 5's, and is shorter "
        f"{shorter} times."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run or of a model")
    parser.add_argument("data", type=Path, nargs="+", help="a table, or two text files")
    parser.add_argument("--lines", type=int, help="only the first of the data")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 5, 10, 30, 100])
    parser.add_argument("--nodes", type=int, default=2000, help="budget of exact search (2000)")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (1)")
    options = parser.parse_args()
    widths = sorted({5, *options.widths})
    torch.set_num_threads(options.threads)
    model = Transducer.load(options.run, device="cpu")
    grouped = corpus(options.data, Path.cwd()).model_copy(update={"group": True})
    examples = list(grouped.read(Path.cwd(), Skipped()))[: options.lines]
    lines = [example.sources["source"] for example in examples]
    references = [list(example.references) for example in examples]
    found: dict[str, Found] = {}
    rows = []
    head = ["search", "BLEU", "chrF", "log-probability", "length", "cut off", "CPU-s"]
    for name, answers in ways(widths, Exact(nodes=options.nodes)).items():
        found[name] = run(model, lines, answers)
        rows.append(row(name, found[name], references))
    print(common.table(head, rows))
    exact = next(one for name, one in found.items() if name.startswith("exact"))
    missed = errors(found, exact)
    if missed:
        head = ["search", "misses the likeliest", "by nats, where it does"]
        print(f"\n{common.table(head, missed)}")
    print(f"\n{optimum(exact, found['beam 5'])}")
    print(f"\n{len(lines)} lines; {common.machine(options.threads)}; {model}")


if __name__ == "__main__":
    main()
