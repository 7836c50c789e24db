"""The errors of a model of recipes/tasks/sigmorphon.yaml in each language that has a test file.

    python recipes/tasks/sigmorphon.py FOLDER RUN [RUN ...] [--second RUN]

Several runs are asked together, as an ensemble. With --second their eight best answers are judged
by another run as well, such as one that writes from right to left (Liu 2016). A run may have
{language} in its name, where each has models of its own; those without any are left out. Beside
each rate stands that of the published baseline, an ensemble of neural transducers (the README of
github.com/sigmorphon/2021-task1), and below them the means over the same languages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from transduce.evaluate import Score, SequenceErrorBlueprint, evaluate
from transduce.problem import Problem
from transduce.rerank import Witness, rerank
from transduce.transducer import Transducer

BASELINE: Final[dict[str, dict[str, float]]] = {
    "medium": {
        "arm_e": 7.0, "bul": 18.3, "dut": 14.7, "fre": 8.5, "geo": 0.0, "hbs_latn": 32.1,
        "hun": 1.8, "jpn_hira": 5.2, "kor": 16.3, "vie_hanoi": 2.5,
    },
    "low": {
        "ady": 22, "gre": 21, "ice": 12, "ita": 19, "khm": 34, "lav": 55, "mlt_latn": 19,
        "rum": 10, "slv": 49, "wel_sw": 10,
    },
}  # fmt: skip


CANDIDATES: Final = 8


def models(names: Sequence[str], language: str) -> Transducer | None:
    """Return what answers for a language: one run or several; None if it has none of its own."""
    runs = [Path(name.replace("{language}", language)) for name in names]
    if not all(run.exists() or str(run) in names for run in runs):
        return None
    first, *others = [Transducer.load(run) for run in runs]
    return first.ensemble(others) if others else first


def score(path: Path, language: str, model: Transducer, second: Transducer | None = None) -> Score:
    """Return the rate of wrong words of a test file."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    sources = [f"<{language}> {word}" for word, _ in rows]
    results = list(model.predict(sources, alternatives=CANDIDATES - 1 if second else 0))
    if second is not None:
        results = rerank(results, [Witness(second, "answer")])
    answers = [result.text for result in results]
    return evaluate([SequenceErrorBlueprint().build()], answers, [[said] for _, said in rows])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--second", metavar="RUN", nargs=1, default=[])
    given = parser.parse_args()
    if not any(given.folder.glob("*/*_test.tsv")):
        raise Problem("it holds no medium/ or low/LANGUAGE_test.tsv", str(given.folder))
    for size, published in BASELINE.items():
        rates: dict[str, float] = {}
        for language, rate in published.items():
            path = given.folder / size / f"{language}_test.tsv"
            if not path.exists():
                continue
            asked = [models(names, language) for names in (given.runs, given.second) if names]
            if None in asked:
                continue
            if not rates:
                print(f"| {size} | wrong words | baseline |\n| --- | ---: | ---: |")
            found = score(path, language, *filter(None, asked))
            rates[language] = found.value
            interval = f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"
            print(f"| {language} | {interval} | {rate:.1f} |", flush=True)
        if rates:
            mean = sum(rates.values()) / len(rates)
            same = sum(published[language] for language in rates) / len(rates)
            print(f"| mean of {len(rates)} | {mean:.2f} | {same:.2f} |\n")


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(str(problem))
