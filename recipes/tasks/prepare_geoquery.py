"""Lay the GeoQuery set out as questions and their FunQL, a file for each part.

    python recipes/tasks/prepare_geoquery.py geoquery880.tsv.gz TARGET

The table has a line of names, among them split, en and funql; TARGET gets train.tsv, dev.tsv and
test.tsv.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path


def main() -> None:
    table, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    with gzip.open(table, "rt", encoding="utf-8", newline="\n") as lines:
        names, *rows = [line.rstrip("\n").split("\t") for line in lines]
    split, question, query = map(names.index, ("split", "en", "funql"))
    for role in ("train", "dev", "test"):
        with (target / f"{role}.tsv").open("w", encoding="utf-8", newline="\n") as made:
            for row in rows:
                if row[split] == role:
                    made.write(f"{row[question]}\t{row[query]}\n")


if __name__ == "__main__":
    main()
