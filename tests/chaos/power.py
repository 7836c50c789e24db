"""Whenever the power goes while checkpoints are saved, the last one whose saving had ended loads.

python tests/chaos/power.py --draws 50    what a disk may have kept, for each moment
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from disk import Done, Event, Recorder, after_the_cut, write

from transduce import folder
from transduce.data.stream import START
from transduce.models.build import ModelBlueprint, build
from transduce.train import checkpoint
from transduce.train.loop import TrainState
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import OptimiserBlueprint


def record(root: Path) -> tuple[list[Event], dict[str, set[str]]]:
    """Save, save anew and remove checkpoints below ``root``; return what happened to it.

    Beside it, the weights of each checkpoint that there were.
    """
    part = {"kind": "recurrent", "embedding": 4, "width": 4}
    blueprint = ModelBlueprint.model_validate({"encoder": part, "decoder": part})
    model = build(blueprint, {"source": 9, "target": 9})
    learner = Learner(model, CrossEntropyBlueprint().build())
    state = TrainState(learner, OptimiserBlueprint().build(model), START)
    recorder, weights = Recorder(root), dict[str, set[str]]()
    with recorder.watching():
        for step in (1, 2, 2, 3):
            state.step = step
            for parameter in model.parameters():
                parameter.data.normal_()
            saved = checkpoint.save(root / "run" / "checkpoints", state)
            weights.setdefault(saved.name, set()).add(folder.digest(saved / checkpoint.WEIGHTS))
            recorder.done(saved.name)
        checkpoint.remove(root / "run" / "checkpoints" / checkpoint.name(1))
    return recorder.events, weights


def trial(left: Path, due: str | None, weights: dict[str, set[str]]) -> str | None:
    """Return what is wrong with what the power cut has left."""
    found, _ = checkpoint.newest(left / "run" / "checkpoints")
    if due is None:
        return None
    if found is None or found.name < due:
        return f"{due} was saved, and {found and found.name} is what there is"
    if folder.digest(found / checkpoint.WEIGHTS) not in weights[found.name]:
        return f"{found.name} has weights that it never had"
    return None


def trials(home: Path, draws: int, seed: int) -> tuple[int, int, list[str]]:
    """Return how many moments there are, how many disks were tried, and what went wrong."""
    (home / "disk").mkdir()
    events, weights = record(home / "disk")
    draw, wrong, tried = random.Random(seed), list[str](), 0
    for cut in range(len(events) + 1):
        due = next((e.what for e in reversed(events[:cut]) if isinstance(e, Done)), None)
        for number in range(draws + 1):
            write(after_the_cut(events, cut, draw if number else None), home / "left")
            tried += 1
            if fault := trial(home / "left", due, weights):
                wrong.append(f"after event {cut} ({type(events[cut - 1]).__name__}): {fault}")
            shutil.rmtree(home / "left")
    return len(events) + 1, tried, wrong


def main() -> None:
    """Do what was asked for, and say what came out; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=50, help="disks for each moment")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        moments, tried, wrong = trials(Path(name), asked.draws, asked.seed)
    for line in wrong[:20]:
        print(line)
    print(f"power cut at {moments} moments, {tried} disks: {tried - len(wrong)} with all on them")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
