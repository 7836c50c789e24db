"""Damage to a checkpoint, of any kind and anywhere, is found and named, and the one before it used.

python tests/chaos/damage.py --times 1000    of each kind: flipped bits, cuts, blocks of zeros
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import power

from transduce import folder
from transduce.train import checkpoint


def flip(content: bytes, draw: random.Random) -> bytes:
    """Flip a bit."""
    place = draw.randrange(len(content))
    changed = bytearray(content)
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    """Leave a part."""
    return content[: draw.randrange(len(content))]


def blank(content: bytes, draw: random.Random) -> bytes:
    """Put zeros where something was, as when a block of the disk was never written."""
    size = draw.choice([1, 16, 512, 4096])
    place = draw.randrange(len(content)) // size * size
    return content[:place] + bytes(len(content[place : place + size])) + content[place + size :]


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped bits": flip,
    "cut files": cut,
    "blocks of zeros": blank,
}


def trials(home: Path, times: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Return how much damage of each kind was done, and what of it went unnoticed."""
    power.record(home)
    root = home / "run" / "checkpoints"
    *_, before, last = checkpoint.every(root)
    files = sorted(path.name for path in last.iterdir())
    assert folder.MANIFEST in files
    draw, done, wrong = random.Random(seed), dict.fromkeys(KINDS, 0), list[str]()
    while min(done.values()) < times:
        kind = min(done, key=lambda one: done[one])
        path = last / draw.choice(files)
        content = path.read_bytes()
        changed = KINDS[kind](content, draw)
        if changed == content:  # it was zero before
            continue
        done[kind] += 1
        path.write_bytes(changed)
        found, problems = checkpoint.newest(root)
        named = [problem.where for problem in problems]
        # what a damaged manifest says of a file can only be laid at that file's door
        right = named == [str(path)] or (
            path.name == folder.MANIFEST and len(named) == 1 and str(last) in str(named[0])
        )
        if found != before or not right:
            wrong.append(f"{kind} in {path.name}: found {found and found.name}, named {named}")
        if not last.exists():  # it was set aside
            (root / f"{last.name}.damaged").rename(last)
        path.write_bytes(content)
    return done, wrong


def main() -> None:
    """Do what was asked for, and say what came out; the exit code is 1 if any was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1000, help="of each kind of damage")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        done, wrong = trials(Path(name), asked.times, asked.seed)
    for line in wrong[:20]:
        print(line)
    counts = ", ".join(f"{count} {kind}" for kind, count in done.items())
    print(f"{counts}: {sum(done.values()) - len(wrong)} found, named, the one before used")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
