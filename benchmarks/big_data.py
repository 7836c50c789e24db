"""Many synthetic pairs: how fast they are encoded, how soon training starts, and in what memory.

    python benchmarks/big_data.py 2000000 --processes 2

Each step is a process of its own, whose memory is read from the system at its end: what it holds
itself, and the most that was resident, which also counts pages of files that the system may take
back at any time.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from transduce.data.store import Encoding, LimitsBlueprint, prepare
from transduce.data.stream import BatchBlueprint, batches
from transduce.data.tables import TsvBlueprint
from transduce.recipe.prepare import longest
from transduce.text.codec import CodecBlueprint, TextCodec

WORDS, SENTENCES, LEARNED, BATCHES = 30_000, 20_000, 20_000, 2000
CORPUS = TsvBlueprint(path="pairs.tsv")


def generate(folder: Path, pairs: int) -> None:
    """Write pairs of two halves each, drawn from many sentences; lengths vary as those of text."""
    numbers = random.Random(0)
    words = [f"w{int(numbers.paretovariate(0.7)) % WORDS}" for _ in range(200_000)]
    lengths = [max(1, int(numbers.lognormvariate(2.2, 0.5))) for _ in range(SENTENCES)]
    sentences = [" ".join(numbers.choices(words, k=length)) for length in lengths]
    with (folder / "pairs.tsv").open("w", encoding="utf-8", newline="\n") as table:
        for start in range(0, pairs, 10_000):
            drawn = numbers.choices(sentences, k=4 * min(10_000, pairs - start))
            rows = zip(*[iter(drawn)] * 4, strict=True)
            table.writelines(f"{a} {b}\t{c} {d}\n" for a, b, c, d in rows)
    with (folder / "pairs.tsv").open(encoding="utf-8") as table:
        lines = [line for line, _ in zip(table, range(LEARNED), strict=False)]
    blueprint = CodecBlueprint.model_validate({"tokens": "words"})
    TextCodec.learn(blueprint, lines).save(folder, "codec")
    size = (folder / "pairs.tsv").stat().st_size
    print(f"pairs      {pairs:,}, {size / 1e9:.2f} GB of text")


def encoding(folder: Path, processes: int = 1) -> Encoding:
    """Return how the pairs are encoded."""
    codec = TextCodec.load(folder, "codec")
    return Encoding({"source": codec, "target": codec}, LimitsBlueprint(), processes=processes)


def encode(folder: Path, pairs: int, processes: int) -> None:
    """Encode them for the first time."""
    begun, worked = time.perf_counter(), time.process_time()
    prepare(CORPUS, folder, encoding(folder, processes), folder / "cache")
    took, worked = time.perf_counter() - begun, time.process_time() - worked
    print(
        f"encoded    {pairs / took:,.0f} pairs/s by {processes} processes, {took:.1f} s, "
        f"{worked:.1f} s of processor time in this one; {memory()}"
    )


def train(folder: Path, pairs: int, processes: int) -> None:
    """Open what is encoded, as training does, and read batches."""
    begun, worked = time.perf_counter(), time.process_time()
    store = prepare(CORPUS, folder, encoding(folder), folder / "cache")
    longest(store)
    assert store.beyond("source", 1 << 20) is None
    stream = batches(store, BatchBlueprint(), seed=1)
    next(stream)
    took, worked = time.perf_counter() - begun, time.process_time() - worked
    print(f"start      {took:.2f} s, {worked:.2f} s of processor time; {memory()}")
    begun = time.process_time()
    tokens = sum(next(stream)[1].tokens for _ in range(BATCHES))
    took = time.process_time() - begun
    print(
        f"{BATCHES} batches {tokens / took / 1e6:.2f} M target tokens a second of processor time; "
        f"{memory()}"
    )


def memory() -> str:
    """Return what this process takes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").split("\n")
    own = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"own memory {own / 1e3:.0f} MB, most resident {most / 1e3:.0f} MB"


STEPS: dict[str, Callable[[Path, int, int], None]] = {"encode": encode, "train": train}


def main() -> None:
    """Run every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=int)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.step:
        STEPS[given.step](given.folder, given.pairs, given.processes)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), given.pairs)
        for step in STEPS:
            command = [sys.executable, __file__, str(given.pairs), "--step", step]
            command += ["--folder", folder, "--processes", str(given.processes)]
            sys.stdout.flush()
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
