"""Does bf16 learn as well as fp32? Both losses of model A on Multi30k, same data, order and seed.

Prints a table and writes docs/precision.csv.
"""

from __future__ import annotations

import argparse
import csv
import time

import torch

import common
from train_speed import ours

COLUMNS = ("update", "fp32", "bf16")


def curve(bf16: bool, updates: int, every: int) -> list[float]:
    """Return the training loss (smoothed, nats a token), averaged over ``every`` updates."""
    learning = ours("A", common.data("A", common.DATA), bf16, tokens=1024, warmup=200)
    losses: list[float] = []
    window: list[tuple[int, float]] = []
    for update, (tokens, _, loss) in enumerate(learning, 1):
        window.append((tokens, loss))
        if update % every == 0:
            total = sum(tokens for tokens, _ in window)
            losses.append(sum(tokens * loss for tokens, loss in window) / total)
            window = []
        if update == updates:
            return losses
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--every", type=int, default=50, help="updates averaged into one point")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    common.need(common.DATA)
    torch.set_num_threads(options.threads)
    begun = time.perf_counter()
    curves = [curve(bf16, options.updates, options.every) for bf16 in (False, True)]
    places = range(options.every, options.updates + 1, options.every)
    rows = [(str(p), f"{a:.4f}", f"{b:.4f}") for p, a, b in zip(places, *curves, strict=True)]
    with (common.HERE.parent / "docs" / "precision.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    print(common.table(COLUMNS, rows))
    print(f"\n{time.perf_counter() - begun:.0f} s; {common.machine(options.threads)}")


if __name__ == "__main__":
    main()
