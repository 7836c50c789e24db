"""What a long source costs: memory and time of one training update against its length.

Every figure comes from a fresh process that makes a short update first, so that what does not
depend on the length (weights, optimiser, dropout's masks) is there; then it makes one update with
one source. Memory is how far the resident set rises above what it was before that update. What
would need more than --memory is refused by the system at once, and longer sources are not tried.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import common
from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.models.build import ModelBlueprint, build
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS, SPECIALS
from transduce.train.fitting import TooLarge
from transduce.train.loop import Plan, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision

LENGTHS = [1024, 2048, 4096, 8192, 16384]
SYMBOLS, TARGET, SHORT, HEADS = 8000, 128, 64, 4
TOO_MUCH = 3  # the exit code that says so
RECOMPUTED = ", recomputed"


def encoders() -> dict[str, dict[str, Any]]:
    """Return the settings of each encoder by what the table calls it."""
    recurrent, cut = {"kind": "recurrent"}, {"kind": "recurrent", "truncate": 256}
    window = {"kind": "window", "reach": 64}
    spans = {
        "window 64": window,
        "window 64, 16 everywhere": window | {"everywhere": 16},
        "segments of 128": {"kind": "segments", "length": 128, "memory": 128},
    }
    full = {"kind": "transformer"}
    windowed = {f"Transformer, {name}": full | {"span": span} for name, span in spans.items()}
    kinds = {
        "recurrent": recurrent,
        "recurrent, truncated at 256": cut,
        "Transformer, full": full,
        **windowed,
        "convolutional": {"kind": "convolutional"},
    }
    return {name + suffix: kind for name, kind in kinds.items() for suffix in ("", RECOMPUTED)}


def batch(length: int) -> Batch:
    """Return one random source of so many symbols with its target."""
    source, target = (torch.randint(len(SPECIALS), SYMBOLS, (size,)) for size in (length, TARGET))
    source[-1], target[0], target[-1] = EOS, BOS, EOS
    return Batch(
        {"source": Sequences.stack([source])}, Sequences.stack([target]), torch.tensor([0])
    )


def measure(name: str, length: int, options: argparse.Namespace) -> tuple[int, float]:
    """Return the bytes and seconds of one update."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    sizes = {"width": options.width, "layers": options.layers}
    embedding = {"embedding": options.width}
    heads = {"heads": HEADS, "inner": 4 * options.width}
    kind = encoders()[name]
    more = {"recurrent": embedding, "transformer": heads}.get(kind["kind"], {})
    decoder = {"kind": "transformer", "width": options.width, "layers": 1} | heads
    blueprint = ModelBlueprint.model_validate({"encoder": kind | sizes | more, "decoder": decoder})
    learner = Learner(
        build(blueprint, {"source": SYMBOLS, "target": SYMBOLS}), CrossEntropyBlueprint().build()
    )
    optimiser = OptimiserBlueprint()
    precision = Precision(torch.bfloat16 if options.bf16 else torch.float32, "as asked")
    plan = Plan(optimiser, 2, 1, 1, torch.device("cpu"), precision, name.endswith(RECOMPUTED))
    stream = ((Position(0, 0), batch(size)) for size in (SHORT, length))
    updates = steps(TrainState(learner, optimiser.build(learner), START), stream, plan)
    next(updates)
    before, data = memory("VmRSS"), memory("VmData")
    most = data + int(options.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    seconds = next(updates).seconds
    return memory("VmHWM") - before, seconds


def memory(field: str) -> int:
    """Return a figure of this process in bytes, as Linux gives it."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def serve(options: argparse.Namespace) -> None:
    """Measure once and print it; end with TOO_MUCH where there is not so much memory."""
    try:
        print(json.dumps(measure(options.only, options.lengths[0], options)))
    except (MemoryError, TooLarge):
        sys.exit(TOO_MUCH)


def row(name: str, options: argparse.Namespace) -> list[str]:
    """Return the cells of one encoder."""
    cells = [name]
    for length in options.lengths:
        if cells[-1].startswith(">"):
            cells.append(cells[-1])
            continue
        command = [sys.executable, *sys.argv, "--only", name, "--lengths", str(length)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == TOO_MUCH:
            cells.append(f"> {options.memory:g} GB")
            continue
        done.check_returncode()
        size, seconds = json.loads(done.stdout)
        cells.append(f"{size / 1e6:,.0f} MB, {seconds:.1f} s")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="symbols")
    parser.add_argument("--memory", type=float, default=8, help="the most GB above the baseline")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4, help="of the encoder; the decoder has 1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="matrix products in bf16")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one figure, by a process of its own
    options = parser.parse_args()
    options.lengths.sort()
    if options.only:
        serve(options)
        return
    begun = time.perf_counter()
    rows = [row(name, options) for name in encoders()]
    print(common.table(["encoder", *(f"{length:,}" for length in options.lengths)], rows))
    sizes = (
        f"{options.layers} layers of width {options.width}, {'bf16' if options.bf16 else 'fp32'}"
    )
    print(f"\n{sizes}; {time.perf_counter() - begun:.0f} s; {common.machine(options.threads)}")


if __name__ == "__main__":
    main()
