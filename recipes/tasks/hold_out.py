"""Hold examples out of a training file, for data that comes without a development set.

    python recipes/tasks/hold_out.py train.tsv.gz 500 TARGET

Every n-th line, so that 500 lines are spread evenly, goes to TARGET/dev.tsv.gz, the rest to
TARGET/train.tsv.gz; both in the order of the file.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path


def main() -> None:
    source, wanted, target = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with gzip.open(source, "rt", encoding="utf-8", newline="\n") as file:
        lines = list(file)
    if not 0 < wanted < len(lines):
        raise SystemExit(f"{source} has {len(lines)} lines; {wanted} cannot be held out")
    target.mkdir(parents=True, exist_ok=True)
    held = {at * len(lines) // wanted for at in range(wanted)}
    for name, mine in (("dev", True), ("train", False)):
        with gzip.open(target / f"{name}.tsv.gz", "wt", encoding="utf-8", newline="\n") as file:
            file.writelines(line for at, line in enumerate(lines) if (at in held) == mine)


if __name__ == "__main__":
    main()
