"""Make the data that the package ships (src/transduce/quickstart) from the published data sets.

    python tools/ship_data.py ../shared/data

The training half of E2E is stored tokenised; it is put back into ordinary writing here, and how
often the same rules restore the development half, of which both forms are known, is printed.
"""

from __future__ import annotations

import gzip
import re
import shutil
import sys
from pathlib import Path

SHIPPED = Path(__file__).parent.parent / "src/transduce/quickstart"
RULES = [
    (r" ([.,!?;:%)\]])", r"\1"),
    (r"([(\[£$€]) ", r"\1"),
    (r" ?- ?(?=£)", r"-"),
    (r" - ", r"-"),
    (r"(^| )' ([^']+?) '(?=[ .,!?;:]|$)", r"\1'\2'"),
    (r' " ([^"]+?) "', r' "\1"'),
    (r" ('(?:s|re|ll|ve|d|m|t)\b)", r"\1"),
    (r" n't\b", "n't"),
    (r" / ", "/"),
]


def detokenise(text: str) -> str:
    """Put spaces back to where people write them."""
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    return text


def rows(path: Path) -> list[list[str]]:
    """Read a gzipped TSV file."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n").split("\t") for line in file]


def write(path: Path, lines: list[list[str]]) -> None:
    """Write a gzipped TSV file that depends on nothing but its content."""
    text = "".join("\t".join(line) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    sys.stdout.write(
        f"{path.relative_to(SHIPPED)}: {len(lines)} rows, {path.stat().st_size} bytes\n"
    )


def main(data: Path) -> None:
    """Make all three sets."""
    dev = rows(data / "e2e_nlg/dev.tsv.gz")
    restored = sum(detokenise(tokenised) == raw for _, tokenised, raw in dev)
    sys.stdout.write(f"E2E: the rules restore {restored} of {len(dev)} known texts\n")
    train = rows(data / "e2e_nlg/train.tsv.gz")
    write(SHIPPED / "e2e/train.tsv.gz", [[detokenise(cell) for cell in row] for row in train])
    write(SHIPPED / "e2e/dev.tsv.gz", [[facts, raw] for facts, _, raw in dev])
    write(SHIPPED / "e2e/test.tsv.gz", rows(data / "e2e_nlg/test.tsv.gz"))
    for name, source in [("tatoeba", "tatoeba_cmn_eng"), ("cmudict", "cmudict_g2p")]:
        for part in ("train", "dev", "test"):
            write(SHIPPED / name / f"{part}.tsv.gz", rows(data / source / f"{part}.tsv.gz"))
    shutil.copyfile(data / "cmudict_g2p/LICENSE.cmudict.txt", SHIPPED / "cmudict/LICENSE.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
