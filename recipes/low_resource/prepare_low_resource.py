"""A language pair with few translations and much text: 1,000 pairs of Multi30k, and text of both.

    python recipes/low_resource/prepare_low_resource.py PAIRS MONO TARGET

PAIRS holds train, val and test_2016_flickr (.en.gz and .de.gz), MONO train.en.gz and train.de.gz,
which are no translations of one another. TARGET gets pairs.{en,de}.gz, drawn from train; dev and
test as they are; mono.{en,de}.gz; and back.de.gz, drawn from mono.de.gz to be translated back.
What is drawn is a function of the numbers of lines.
"""

from __future__ import annotations

import argparse
import gzip
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SIDES: Final = ("en", "de")
SEED: Final = 1


def lines(path: Path) -> list[str]:
    """Return the lines of a file, each with its end."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return list(file)


def drawn(total: int, wanted: int) -> list[int]:
    """Return the places of as many lines as are wanted, in their order."""
    if not 0 < wanted <= total:
        raise SystemExit(f"{wanted} lines are wanted of {total}")
    return sorted(random.Random(SEED).sample(range(total), wanted))


def write(path: Path, content: Sequence[str]) -> None:
    """Write lines, the same bytes each time."""
    path.write_bytes(gzip.compress("".join(content).encode(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("pairs", "mono", "target"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--few", type=int, default=1000, help="pairs to draw (1000)")
    parser.add_argument("--back", type=int, default=20000, help="lines to draw (20000)")
    given = parser.parse_args()
    given.target.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
        whole, mono = (
            lines(given.pairs / f"train.{side}.gz"),
            lines(given.mono / f"train.{side}.gz"),
        )
        write(given.target / f"pairs.{side}.gz", [whole[at] for at in drawn(len(whole), given.few)])
        write(given.target / f"mono.{side}.gz", mono)
        for split, name in (("val", "dev"), ("test_2016_flickr", "test")):
            write(given.target / f"{name}.{side}.gz", lines(given.pairs / f"{split}.{side}.gz"))
    write(given.target / "back.de.gz", [mono[at] for at in drawn(len(mono), given.back)])


if __name__ == "__main__":
    main()
