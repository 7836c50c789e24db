"""What two processes gain over one, beside two threads in one process, in the same run.

All competitors take turns update by update and learn from the same batches, so that they meet the
same noise; two processes divide the rows of each. Every process computes with one thread, except
where it says two.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import torch
from torch.distributed import TCPStore

import common
from train_speed import ours
from transduce.recipe.prepare import Prepared
from transduce.train.parallel import joined

ONE, THREADS, PROCESSES = "transduce, one process", "two threads", "two processes"
SECOND = "the second of two"
NAMES = (ONE, THREADS, PROCESSES)
WARM = 2


def updates(
    name: str, prepared: Prepared, bf16: bool, tokens: int
) -> Iterator[tuple[int, int, float]]:
    """Make updates, together with whom the environment names."""
    with joined(torch.device("cpu")) as group:
        yield from ours(name, prepared, bf16, tokens, group=group)


def start_second(port: int) -> subprocess.Popen[bytes]:
    """Start the other of two processes."""
    facts = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= facts | {"TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "0"}
    command = [sys.executable, *sys.argv[: sys.argv.index("--only")], "--only", SECOND]
    return subprocess.Popen(command, env=os.environ | {"RANK": "1"}, stdin=subprocess.DEVNULL)


def compete(name: str, competitor: str, prepared: Prepared, bf16: bool, tokens: int) -> None:
    """Be one of the competitors until nobody asks for more."""
    torch.set_num_threads(2 if competitor == THREADS else 1)
    work = updates(name, prepared, bf16, tokens)
    if competitor == SECOND:
        for _ in work:  # ends when the first process has gone
            pass
    if competitor == PROCESSES:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        with start_second(store.port) as second:
            common.serve(work)
            second.kill()
        return
    common.serve(work)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--updates", type=int, default=12, help="measured updates of each")
    parser.add_argument("--tokens", type=int, default=8192, help="positions of a batch")
    parser.add_argument("--bf16", action="store_true", help="instead of fp32")
    options = parser.parse_args()
    common.need(options.data)
    name = options.model or "A"
    prepared = common.data(name, options.data)
    if options.only:
        compete(name, options.only, prepared, options.bf16, options.tokens)
        return
    found = common.take_turns(NAMES, [], WARM, options.updates)
    base = found[0].measure()[1]
    rows = [
        [one.name, f"{one.measure()[1]:,.0f}", f"{one.measure()[1] / base:.2f}"] for one in found
    ]
    print(f"{common.MODELS[name]}\n\n{common.table(['training', 'tokens/s', 'ratio'], rows)}\n")
    kind = "bf16" if options.bf16 else "fp32"
    print(f"{options.updates} updates of {options.tokens} positions, {kind}; {common.machine(1)}")


if __name__ == "__main__":
    main()
