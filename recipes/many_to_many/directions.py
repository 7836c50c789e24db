"""How well models translate in each direction that they can be asked for, as a table.

    python recipes/many_to_many/directions.py FOLDER RUN [RUN ...] [search=greedy]

FOLDER holds the New Testament in four languages as bible_nt_multi/test.tsv.gz. What directions a
run has learned, and the tags that it was told, are those of its dev set; where it knows a tag for a
language, it is also asked for that from the languages that it has not been taught to translate into
it (zero-shot). A run without tags has one direction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from transduce.blueprint import read
from transduce.data.lines import Skipped
from transduce.data.mixture import MixtureBlueprint
from transduce.data.tables import TsvBlueprint
from transduce.evaluate import BleuBlueprint, ChrfBlueprint, Score, evaluate
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe.use import asked

TEST: Final = "bible_nt_multi/test.tsv.gz"
UNSPACED: Final = ("zho",)  # what BLEU has to cut into words itself


class Direction(NamedTuple):
    """From which language into which, and what the model has to be told."""

    source: str
    target: str
    tag: str | None
    learned: bool


def directions(experiment: Experiment) -> list[Direction]:
    """Return what was learned, then what was not."""
    dev = experiment.data.dev
    learned = [
        Direction(str(corpus.source), str(corpus.target), corpus.tag, True)
        for corpus in (dev.of if isinstance(dev, MixtureBlueprint) else (dev,))
        if isinstance(corpus, TsvBlueprint)
    ]
    known = {(found.source, found.target) for found in learned}
    tags = {found.target: found.tag for found in learned if found.tag}
    return learned + [
        Direction(source, target, tag, False)
        for source in dict.fromkeys(found.source for found in learned)
        for target, tag in tags.items()
        if source != target and (source, target) not in known
    ]


def scores(run: Path, data: Path, changes: Sequence[str]) -> dict[Direction, list[Score]]:
    """Return BLEU and chrF of a run in each of its directions."""
    model, setting = asked(run, changes, ())
    found = {}
    for way in directions(read(run / "experiment.yaml", Experiment)):
        test = TsvBlueprint(
            path=TEST, source=way.source, target=way.target, tag=way.tag, on_bad_line="skip"
        )
        examples = list(test.read(data, Skipped()))
        lines = (example.sources["source"] for example in examples)
        texts = [result.text for result in setting.answers(model, lines)]
        words = BleuBlueprint(tokenize="zh" if way.target in UNSPACED else "13a")
        metrics = [words.build(), ChrfBlueprint().build()]
        found[way] = evaluate(metrics, texts, [example.references for example in examples])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("runs", nargs="+", metavar="RUN|KEY=VALUE", help="runs, and changes")
    given = parser.parse_args()
    changes = [argument for argument in given.runs if "=" in argument]
    signatures: dict[str, None] = {}  # a set that keeps its order
    print("| run | direction | learned | verses | BLEU | chrF |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for run in (Path(argument) for argument in given.runs if "=" not in argument):
        for way, (bleu, chrf) in scores(run, given.data, changes).items():
            signatures |= {bleu.signature: None, chrf.signature: None}
            facts = [run.name, f"{way.source} to {way.target}", "yes" if way.learned else "no"]
            shown = [f"{s.value:.1f} [{s.low:.1f}, {s.high:.1f}]" for s in (bleu, chrf)]
            print(f"| {' | '.join([*facts, str(bleu.segments), *shown])} |", flush=True)
    print(f"\nSignatures: {', '.join(f'`{signature}`' for signature in signatures)}")


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        sys.exit(str(problem))
