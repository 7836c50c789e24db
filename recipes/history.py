"""Train the recipes of a data set under equal conditions, and write what came out.

    python recipes/history.py --set multi30k --data FOLDER

All make the same number of updates from the same batches, so that the same command gives the same
models everywhere; how long that takes one core is a column of the table. A finished run is not
trained again, and an interrupted one goes on. The results go into docs/history.md, between the two
marks that bear the name of the data set, and into a picture beside it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from plot import Line, plot
from table import Finished, circumstances, markdown, read_run, within
from transduce import quickstart
from transduce.blueprint import read
from transduce.data.batch import Example
from transduce.data.lines import Skipped
from transduce.evaluate import BleuBlueprint, evaluate
from transduce.experiment import Experiment
from transduce.folder import write_text
from transduce.problem import Problem
from transduce.recipe import train
from transduce.report.markup import score
from transduce.train.progress import Show

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "history.md"
SETS = {"multi30k": None, "e2e": quickstart.HERE / "e2e"}  # where their data is, if it comes along
GROUPS = 5  # of about equally many test sources, by their length
SMALL = {"embedding": 8, "width": 8, "inner": 8}
QUICK = (
    "text.source.tokens.size=500",
    "train.max_steps=4",
    "validation.every=2",
    "validation.examples=2",
    "search=greedy",
)


class Recipe(NamedTuple):
    """What the first line of a recipe says."""

    name: str
    authors: str
    year: str
    brought: str
    path: Path


class Result(NamedTuple):
    """What came out of a run."""

    recipe: Recipe
    run: Finished
    by_length: list[float]  # BLEU of each group of sources


def recipes(name: str) -> list[Recipe]:
    """Return the recipes of a data set in the order of their years."""
    found = []
    for path in (HERE / name).glob("*.yaml"):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        said = re.fullmatch(r"# (.+) (\d{4}(?:-\d{4})?): (.+)", first)
        assert said, f"{path}: the first line says: # WHO YEAR: WHAT IT BROUGHT"
        found.append(Recipe(path.stem, said[1], said[2], said[3], path))
    return sorted(found, key=lambda recipe: (recipe.year[-4:], recipe.name))


def experiment(recipe: Recipe, updates: int | None = None, quick: bool = False) -> Experiment:
    """Return the experiment of a recipe; a quick one is tiny."""
    changes = [f"train.max_steps={updates}"] if updates else []
    if quick:
        whole = read(recipe.path, Experiment)
        parts = {"encoder": whole.model.encoder, "decoder": whole.model.decoder}
        changes += QUICK + tuple(
            f"model.{side}.{size}={value}"
            for side, part in parts.items()
            for size, value in SMALL.items()
            if size in type(part).model_fields
        )
    return read(recipe.path, Experiment, changes)


def finished(run: Path, wanted: Experiment) -> bool:
    """Whether a run of this experiment has come to its end."""
    known = run / "experiment.yaml"
    return (run / "scores.json").exists() and read(known, Experiment) == wanted


def groups(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Sort examples into groups by the words of their sources; return the places by group."""
    words = np.array([len(example.sources["source"].split()) for example in examples])
    cuts = np.unique(np.quantile(words, np.arange(1, GROUPS) / GROUPS, method="nearest"))
    edges = [words.min() - 1, *cuts[cuts < words.max()], words.max()]
    return {
        "-".join(dict.fromkeys((str(low + 1), str(high)))): np.flatnonzero(
            (low < words) & (words <= high)
        ).tolist()
        for low, high in pairwise(edges)
    }


def result(recipe: Recipe, run: Path, examples: Sequence[Example]) -> Result:
    """Read what came out of a finished run, and score the groups."""
    found = read_run(run)
    bleu = [BleuBlueprint().build()]
    by_length = [
        evaluate(
            bleu,
            [found.predictions[place] for place in places],
            [examples[place].references for place in places],
            bootstrap=0,
        )[0].value
        for places in groups(examples).values()
    ]
    return Result(recipe, found, by_length)


def family(made: Experiment) -> int:
    """Return 0 for models with one vector, 1 for recurrent attention, 2 for no recurrence."""
    decoder: Any = made.model.decoder
    if decoder.kind != "recurrent":
        return 2
    return int(decoder.connection.kind not in ("fixed", "initial"))


def text(name: str, results: Sequence[Result], examples: Sequence[Example]) -> str:
    """Return the tables of a data set, and what belongs to them."""
    rows = []
    for found in results:
        run = found.run
        rows.append(
            [
                f"[{found.recipe.name}](../recipes/{name}/{found.recipe.name}.yaml)",
                found.recipe.year,
                found.recipe.brought,
                f"{run.parameters / 1e6:.2f} M",
                f"{run.minutes:.1f}",
                within(run.scores["bleu"]),
                score(run.scores["chrf"]["value"]),
            ]
        )
    head = ("recipe", "year", "what it brought", "parameters", "minutes", "BLEU", "chrF")
    sizes = [f"{label} words" for label in groups(examples)]
    lengths = [[found.recipe.name, *map(score, found.by_length)] for found in results]
    return "\n\n".join(
        [
            markdown(head, rows, words=3),
            conditions(results),
            "BLEU by the length of the source:",
            markdown(["recipe", *sizes], lengths, words=1),
        ]
    )


def conditions(results: Sequence[Result]) -> str:
    """Return what the figures depend on besides the recipes."""
    first = results[0].run
    setting = first.experiment.train
    search: Any = first.experiment.search
    width = f" of width {search.width}" if search.kind == "beam" else ""
    return (
        f"{setting.max_steps:,} updates of {setting.batch.tokens:,} tokens each; {search.kind} "
        f"search{width}; {first.scores['bleu']['segments']:,} test sources. Minutes are those of "
        f"the updates, by the clock. {circumstances([found.run for found in results])}"
    )


def insert(page: str, name: str, content: str) -> str:
    """Return a page with new content between the marks of a data set."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    assert begin in page, f"the page has no line {begin}"
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}{content}\n{end}{after}"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=SETS, default="multi30k", help="the data set")
    parser.add_argument("--data", type=Path, help="its folder (e2e comes with the package)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="train these recipes alone")
    parser.add_argument("--updates", type=int, help="instead of those of the recipes")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny models, a few updates; without --page printed alone",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs", "history"), help="their folder")
    parser.add_argument("--page", type=Path, help="where the results go (docs/history.md)")
    given = parser.parse_args()
    given.data = given.data or SETS[given.set]
    if given.data is None:
        parser.error(f"--data: {given.set} does not come with the package; where is its folder?")
    names = [recipe.name for recipe in recipes(given.set)]
    for name in given.only or ():
        if name not in names:
            parser.error(f"--only: there is no recipe {name} ({', '.join(names)})")
    if not given.quick:
        given.page = given.page or PAGE
    return given


def publish(page: Path, name: str, results: Sequence[Result], examples: Sequence[Example]) -> None:
    """Write tables and picture."""
    picture = page.with_name(f"history-{name}.svg")
    lines = [Line(r.recipe.name, family(r.run.experiment), r.by_length) for r in results]
    title = f"BLEU on {name}: one vector dotted, recurrent attention dashed, others solid"
    write_text(picture, plot(title, "words of the source", list(groups(examples)), lines))
    shown = (
        f"{text(name, results, examples)}\n\n![BLEU by the length of the source]({picture.name})"
    )
    write_text(page, insert(page.read_text("utf-8"), name, shown))


def main() -> int:
    given = options()
    show = Show()
    known = {r: experiment(r, given.updates, given.quick) for r in recipes(given.set)}
    # more updates are other runs: how the rate falls depends on their number
    folders = {
        r: given.runs / f"{given.set}-{wanted.train.max_steps}" / r.name
        for r, wanted in known.items()
    }
    for recipe, wanted in known.items():
        run = folders[recipe]
        if (given.only and recipe.name not in given.only) or finished(run, wanted):
            continue
        show.say(f"\n{recipe.name}")
        if code := train(wanted, given.data, run, show):
            return code
    test = next(iter(known.values())).data.test
    assert test
    examples = list(test.read(given.data, Skipped()))
    results = [
        result(recipe, folders[recipe], examples)
        for recipe, wanted in known.items()
        if finished(folders[recipe], wanted)
    ]
    print(text(given.set, results, examples))
    if given.page:
        publish(given.page, given.set, results, examples)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        sys.exit(str(problem))
