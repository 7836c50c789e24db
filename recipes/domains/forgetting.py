"""What each way of fine-tuning has learned and forgotten, as a table.

    python recipes/domains/forgetting.py TARGET

TARGET is the folder that prepare_domains.py wrote, with the runs of these recipes in TARGET/runs.
Each model is scored on the new test set and on both old ones; below the base, in brackets, is what
it has lost or gained against that. Sizes are those of the model folders.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from transduce.folder import read_json
from transduce.recipe.use import evaluate

RUNS: Final = ("base", "full", "lora", "bottleneck")
TESTS: Final = {
    "software": "new/test.tsv.gz",
    "tatoeba": "old/tatoeba.tsv.gz",
    "bible": "old/bible.tsv.gz",
}


def row(target: Path, name: str, changes: Sequence[str]) -> tuple[list[str], list[float]]:
    """Return what is said of a run besides its scores, and its BLEU on each test set."""
    run = target / "runs" / name
    size = sum(file.stat().st_size for file in (run / "model").iterdir())
    lines = (run / "train.jsonl").read_text(encoding="utf-8").split("\n")
    seconds = max(json.loads(line)["seconds"] for line in lines if line)
    threads = read_json(run / "environment.json")["threads"]
    facts = [name, f"{size / 1e6:.2f} MB", f"{seconds / 60:.0f} min, {threads} threads"]
    return facts, [evaluate(run, [target / path], changes)[0].value for path in TESTS.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="such as search=greedy")
    given = parser.parse_args()
    print("| run | model folder | trained |", *(f"BLEU, {name} |" for name in TESTS))
    print("|---|---|---|" + "---|" * len(TESTS))
    base: list[float] | None = None
    for name in (name for name in RUNS if (given.target / "runs" / name / "model").exists()):
        facts, scores = row(given.target, name, given.changes)
        if base is None:
            base, shown = scores, [f"{score:.1f}" for score in scores]
        else:
            shown = [f"{s:.1f} ({s - b:+.1f})" for s, b in zip(scores, base, strict=True)]
        print(f"| {' | '.join([*facts, *shown])} |", flush=True)


if __name__ == "__main__":
    main()
