"""How fast one trained model predicts in different ways on a CPU, each beside the plain way.

For a run (or a model) and a table of tests, all in one process, the ways in turns, so that all meet
the same noise; time is that of the processor. Ratios are the time of the first way of each table
over that of the others.

* Unsorted input: greedy search over batches as the lines come, where answered sources stay until
  all of a batch are answered; where they leave; and where waiting sources take their places.
* One line at a time: greedy search, beam search, drafts from the source.
* Numbers: greedy search in the order of length, with weights in fp32, bf16 and int8; how many
  answers stay the same; and the BLEU of each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import common
from transduce.data.lines import Skipped
from transduce.evaluate import BleuBlueprint, ChrfBlueprint, evaluate
from transduce.nn.packed import TYPES, NumberType, pack, seconds
from transduce.recipe.init import corpus
from transduce.search import Beam, Draft, Greedy, SearchBlueprint, answers, stepwise
from transduce.transducer import Transducer

ROWS, REFILL = 64, 4

Way = Callable[[], int]  # it returns the number of tokens of its answers


def unsorted(model: Transducer, lines: list[str], share: float, batches: int) -> Way:
    """Return greedy search over lines as they come.

    ``share`` of a batch has to be answered before rows are dropped; with more than one of
    ``batches`` side by side, waiting sources take the places of answered ones.
    """
    panel, size = model.panel, ROWS // batches
    read = [panel.read("source", "", line, line) for line in lines]
    cuts = [np.arange(start, min(start + size, len(read))) for start in range(0, len(read), size)]

    def run() -> int:
        stacked = [panel.stack(read[row] for row in rows) for rows in cuts]
        waiting = (
            panel.batch(panel.scorer, one, torch.zeros(len(rows)).long(), model.length)
            for one, rows in zip(stacked, cuts, strict=True)
        )
        room = ROWS if batches > 1 else 0
        with mock.patch.object(stepwise, "DONE", share):
            found = answers(Greedy(), panel.scorer, waiting, room)
            return sum(int(part.lengths.sum()) for part in found)

    return run


def one_by_one(model: Transducer, lines: list[str], search: SearchBlueprint) -> Way:
    """Return a search that gets a line at a time."""
    return lambda: sum(len(model(line, search).tokens) for line in lines)


def race(ways: dict[str, Way], rounds: int) -> dict[str, tuple[float, int]]:
    """Let the ways take turns; return the least seconds of each and the tokens of its answers."""
    found = {name: (float("inf"), way()) for name, way in ways.items()}  # this one warms up
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.process_time()
            tokens = way()
            found[name] = min(found[name][0], time.process_time() - begun), tokens
    return found


def report(title: str, found: dict[str, tuple[float, int]], lines: int) -> None:
    """Print a table; the first row is what the others are compared with."""
    first = next(iter(found.values()))[0]
    rows = [
        [name, f"{tokens / spent:,.0f}", f"{spent / lines * 1e3:.1f}", f"{first / spent:.2f}"]
        for name, (spent, tokens) in found.items()
    ]
    print(f"\n{common.table([title, 'tokens per CPU-s', 'ms a line', 'ratio'], rows)}", flush=True)


def numbers(model: Transducer, lines: list[str], references: list[list[str]], rounds: int) -> None:
    """Print how fast, how like and how good the answers with each type of number are."""
    texts: dict[str, list[str]] = {}
    spent: dict[str, list[float]] = {name: [] for name in get_args(NumberType)}
    kinds: list[NumberType] = list(get_args(NumberType))
    for _ in range(1 + rounds):
        for name in kinds:
            pack(model.model, name)
            begun = time.process_time()
            texts[name] = [result.text for result in model.predict(lines, Greedy())]
            spent[name].append(time.process_time() - begun)
    pack(model.model)
    least, rows = {name: min(times[1:]) for name, times in spent.items()}, []
    for name in kinds:
        same = np.mean([a == b for a, b in zip(texts[name], texts["fp32"], strict=True)])
        metrics = [BleuBlueprint().build(), ChrfBlueprint().build()]
        good = [f"{score.value:.2f}" for score in evaluate(metrics, texts[name], references, 2)]
        rows.append([name, f"{least['fp32'] / least[name]:.2f}", f"{100 * same:.1f} %", *good])
    print(f"\n{common.table(['numbers', 'ratio', 'same answers', 'BLEU', 'chrF'], rows)}")


def products() -> None:
    """Print how fast single products are: what a product gains depends on its size."""
    rows = []
    for outputs, inputs in ((256, 256), (1024, 256), (256, 1024), (8000, 256)):
        weight: Tensor = torch.randn(outputs, inputs)
        kinds = get_args(NumberType)
        needed = {name: min(seconds(TYPES[name], weight) for _ in range(3)) for name in kinds}
        cells = [f"{needed['fp32'] / needed[name]:.2f}" for name in kinds[1:]]
        rows.append([f"{inputs} to {outputs}, {ROWS} rows", *cells])
    print(f"\n{common.table(['one product', *get_args(NumberType)[1:]], rows)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run or of a model")
    parser.add_argument("data", type=Path, nargs="+", help="a table, or two text files")
    parser.add_argument("--lines", type=int, default=256, help="test lines to answer (256)")
    parser.add_argument("--alone", type=int, default=32, help="of these one at a time (32)")
    parser.add_argument("--rounds", type=int, default=2, help="measured turns of each way (2)")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = Transducer.load(options.run, device="cpu")
    grouped = corpus(options.data, Path.cwd()).model_copy(update={"group": True})
    examples = list(grouped.read(Path.cwd(), Skipped()))[: options.lines]
    lines = [example.sources["source"] for example in examples]
    references = [list(example.references) for example in examples]
    with torch.no_grad():
        ways = {
            "answered sources stay": unsorted(model, lines, 1.0, 1),
            "answered sources leave": unsorted(model, lines, stepwise.DONE, 1),
            "others take their places": unsorted(model, lines, stepwise.DONE, REFILL),
        }
        report("unsorted input", race(ways, options.rounds), len(lines))
    few = lines[: options.alone]
    alone = {"greedy": one_by_one(model, few, Greedy())}
    if model.bundle.blueprint.joint:
        alone["drafts from the source"] = one_by_one(model, few, Draft())
    alone["beam 5"] = one_by_one(model, few, Beam())
    report("one line at a time", race(alone, options.rounds), len(few))
    numbers(model, lines, references, options.rounds)
    products()
    print(f"\n{len(lines)} lines, {len(few)} alone; {common.machine(options.threads)}; {model}")


if __name__ == "__main__":
    main()
