"""Set punctuation apart in the annotations of the Django set, as the papers do.

    python recipes/tasks/prepare_django.py FOLDER TARGET

FOLDER holds train.tsv.gz, dev.tsv.gz and test.tsv.gz; the same names are written to TARGET. What
stands in quotes stays as it is, and so does the code, whose tokens white space parts already (two
spaces become one, as nothing else could be scored token by token).
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

QUOTED = re.compile(r"""('[^']*'|"[^"]*")""")
APART = re.compile(r"(\w+)|([^\w\s])")


def apart(text: str) -> str:
    """Return the text with spaces around punctuation that is not quoted."""
    parts = QUOTED.split(text)
    spaced = [
        part if at % 2 else " ".join(found.group() for found in APART.finditer(part))
        for at, part in enumerate(parts)
    ]
    return " ".join(" ".join(spaced).split())


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    for role in ("train", "dev", "test"):
        with (
            gzip.open(source / f"{role}.tsv.gz", "rt", encoding="utf-8", newline="\n") as lines,
            gzip.open(target / f"{role}.tsv.gz", "wt", encoding="utf-8", newline="\n") as made,
        ):
            for line in lines:
                annotation, code = line.rstrip("\n").split("\t")
                made.write(f"{apart(annotation)}\t{' '.join(code.split())}\n")


if __name__ == "__main__":
    main()
