"""What must not have changed since a run began, or else it would not be the same run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from transduce import folder
from transduce.bundle import fingerprint, model_folder
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.train import checkpoint
from transduce.train.precision import Precision, Setting, choose

MODELS = "models.json"  # in a run folder: fingerprints of the models that its objective asks


def same_schedule(before: Experiment, now: Experiment, run: Path) -> None:
    """Refuse another number of updates if those that were made would have had other rates.

    Raises:
        Problem: they would; a schedule that ends somewhere cannot be given another end behind it.
    """
    old, new = before.train.max_steps, now.train.max_steps
    saved = sound(run / "checkpoints") if old != new else None
    if saved is None:
        return
    step, scores = checkpoint.progress(saved)
    schedule = now.train.optimiser.schedule
    if step and schedule.factor(step, old, scores) != schedule.factor(step, new, scores):
        raise Problem(
            f"this run has made {step} updates at rates that the schedule {schedule.kind} laid out "
            f"for {old} updates, not {new}; set train.max_steps: {old}, or choose another folder "
            "to begin anew",
            str(run),
        )


def sound(root: Path) -> Path | None:
    """Return the newest checkpoint that is undamaged; touch none."""
    for path in reversed(checkpoint.every(root)):
        with suppress(Problem):
            folder.verify(path)
            return path
    return None


def same_precision(setting: Setting, device: torch.device, run: Path) -> Precision:
    """Choose the number type; "auto" means what was chosen when the run began.

    What is faster is measured, so that it might turn out differently the next time.
    """
    path = run / "environment.json"
    if setting == "auto" and path.exists():
        setting = folder.read_json(path)["precision"]
    return choose(setting, device)


def same_data(name: str, fingerprint: str, run: Path) -> None:
    """Refuse to go on with a run whose data has changed.

    Raises:
        Problem: it has.
    """
    path = run / "data.json"
    if not path.exists():
        return
    before = folder.read_json(path)[name].get("fingerprint", fingerprint)
    if before != fingerprint:
        data = {"train": "training data", "dev": "dev data, which decides what is the best model,"}
        raise Problem(
            f"the {data[name]} is not what it was when this run began; choose another folder, or "
            "put the data back to go on",
            str(run),
        )


def same_models(folders: Sequence[str], run: Path) -> None:
    """Write down which models an objective asks, such as teachers; refuse others.

    Raises:
        Problem: there is none, or one is not what it was when the run began.
    """
    path = run / MODELS
    before = folder.read_json(path) if path.exists() else {}
    now = {name: fingerprint(model_folder(Path(name))) for name in folders}
    for name, mark in now.items():
        if before.get(name, mark) != mark:
            raise Problem(
                "this model, which the objective asks, is not what it was when the run began; put "
                "it back to go on, or choose another folder for the run to begin anew",
                name,
            )
    if not now.items() <= before.items():
        folder.write_json(path, {**before, **now})
