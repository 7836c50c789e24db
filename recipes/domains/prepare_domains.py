"""English to Chinese, an old domain and a new one, for what fine-tuning learns and forgets.

    python recipes/domains/prepare_domains.py TATOEBA BIBLE SOFTWARE TARGET

Each is a folder with train, dev and test .tsv.gz: sentences of Tatoeba (English, Chinese, where it
is from), verses of the Bible (number, English, Chinese), strings of LibreOffice's interface
(English, Chinese, module). TARGET/old gets the first two together to learn from, their dev sets
together, and each one's test set; TARGET/new the last. All have two columns.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FIRST: Final = {"tatoeba": 0, "bible": 1, "software": 0}  # the column of the English


def pairs(folder: Path, name: str, split: str) -> Iterator[str]:
    """Yield the English and the Chinese of each line."""
    first = FIRST[name]
    with gzip.open(folder / f"{split}.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            english, chinese = line.removesuffix("\n").split("\t")[first : first + 2]
            yield f"{english}\t{chinese}\n"


def write(path: Path, *parts: Iterator[str]) -> None:
    """Write parts behind one another, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(line for part in parts for line in part)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in (*FIRST, "target"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    tatoeba, bible, software, target = (getattr(given, name) for name in (*FIRST, "target"))
    for split in ("train", "dev"):
        parts = pairs(tatoeba, "tatoeba", split), pairs(bible, "bible", split)
        write(target / "old" / f"{split}.tsv.gz", *parts)
    write(target / "old" / "tatoeba.tsv.gz", pairs(tatoeba, "tatoeba", "test"))
    write(target / "old" / "bible.tsv.gz", pairs(bible, "bible", "test"))
    for split in ("train", "dev", "test"):
        write(target / "new" / f"{split}.tsv.gz", pairs(software, "software", split))


if __name__ == "__main__":
    main()
