"""What the chaos scripts share: a small run, trained in processes of its own that may die."""

from __future__ import annotations

import importlib
import json
import os
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

from transduce import folder
from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.nn.dropout import MaskPool
from transduce.recipe import train
from transduce.train import checkpoint, loop
from transduce.train.progress import Show

SETTINGS: Final = """
data:
  train: {kind: tsv, path: train.tsv}
  dev: {kind: tsv, path: dev.tsv}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 8, dropout: 0.2}
  decoder: {kind: recurrent, embedding: 8, width: 8, dropout: 0.2}
train: {max_steps: 24, batch: {tokens: 64}, threads: 1, precision: fp32, log_every: 1}
validation: {every: 6, examples: 4, keep: 2, patience: 0}
metrics: [exact]
"""


def prepare(home: Path) -> None:
    """Write the data of the run, and let it be encoded there."""
    importlib.import_module("torch._dynamo")  # an optimiser loads it; once is enough
    os.environ["TRANSDUCE_CACHE"] = str(home / "cache")
    for name, first, last in (("train", 0, 100), ("dev", 100, 120)):
        rows = (f"{number:03d}\t{str(number)[::-1]}\n" for number in range(first, last))
        (home / f"{name}.tsv").write_text("".join(rows), encoding="utf-8")


def start(home: Path, name: str, before: Callable[[], object] = lambda: None) -> int:
    """Train in a new process, or go on; return its number."""
    child = os.fork()
    if child:
        return child
    code = 70
    patch.object(loop, "MaskPool", partial(MaskPool, size=1 << 14)).start()  # it is soon made
    try:
        before()
        experiment = parse(SETTINGS, Experiment)
        code = train(experiment, home, home / name, Show(quiet=True))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(child: int) -> int:
    """Wait for a process; return its exit code, negative after a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(run: Path) -> dict[str, object]:
    """Return all that has to be the same, however often the run has died."""
    *_, last = checkpoint.every(run / "checkpoints")
    paths = {name: last / name for name in (checkpoint.WEIGHTS, checkpoint.OPTIMISER)}
    paths["model"] = run / "model" / "weights.safetensors"
    lines = (run / "train.jsonl").read_text(encoding="utf-8").split("\n")
    timed = {"seconds", "tokens_per_second"}
    journal = [
        {key: value for key, value in json.loads(line).items() if key not in timed}
        for line in lines
        if line
    ]
    facts = folder.read_json(last / checkpoint.STATE)
    del facts["seconds"]
    return {
        **{name: folder.digest(path) for name, path in paths.items()},
        "state": facts,
        "journal": journal,
    }
