"""Saving a training run so that it can go on as if it had never stopped."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from transduce import folder
from transduce.data.follow import Measured
from transduce.data.stream import Position
from transduce.nn.addition import learned
from transduce.problem import Problem
from transduce.train.loop import TrainState
from transduce.train.moving_average import put

WEIGHTS, OPTIMISER, STATE = "weights.safetensors", "optimiser.safetensors", "state.json"
AVERAGE = "average.safetensors"  # where a moving average is kept


def save(root: Path, state: TrainState, processes: int = 1) -> Path:
    """Write ``root/step-N`` whole or not at all."""
    target = root / name(state.step)

    def fill(fresh: Path) -> None:
        save_file(tensors(state.learner.model), fresh / WEIGHTS)
        save_file(_optimiser_tensors(state.optimiser), fresh / OPTIMISER)
        if state.average is not None:
            save_file(state.average.values, fresh / AVERAGE)
        facts = {
            "step": state.step,
            "position": list(state.position),
            "tokens": state.tokens,
            "seconds": state.seconds.hex(),
            "scores": [score.hex() for score in state.scores],
            "validated": state.validated,
            "left_out": state.left_out,
            "in_a_row": state.in_a_row,
            "returns": state.returns,
            "threads": torch.get_num_threads(),
            "processes": processes,
            "torch": torch.__version__,
        }
        if state.limit < math.inf:
            facts["limit"] = state.limit
        if state.course:
            facts["course"] = [[one.epoch, *(x.hex() for x in one.losses)] for one in state.course]
        folder.write_json(fresh / STATE, facts)

    folder.write(target, fill)
    return target


def name(step: int) -> str:
    """Return what the checkpoint of an update is called."""
    return f"step-{step:07d}"


def load(source: Path, state: TrainState) -> None:
    """Put a run back to where it was saved; the folder must have been verified."""
    load_tensors(state.learner.model, load_file(source / WEIGHTS), source / WEIGHTS)
    _load_optimiser(state.optimiser, load_file(source / OPTIMISER))
    if state.average is not None:
        put(load_file(source / AVERAGE), state.average.values)
    facts = folder.read_json(source / STATE)
    state.position = Position(*facts["position"])
    state.step, state.tokens = facts["step"], facts["tokens"]
    state.seconds = float.fromhex(facts["seconds"])
    state.scores = [float.fromhex(score) for score in facts["scores"]]
    state.validated = facts.get("validated", state.step)
    state.left_out, state.in_a_row, state.returns = (
        facts.get(name, 0) for name in ("left_out", "in_a_row", "returns")
    )
    state.limit = facts.get("limit", math.inf)
    state.course = [
        Measured(epoch, tuple(map(float.fromhex, losses)))
        for epoch, *losses in facts.get("course", [])
    ]


def threads(source: Path) -> int:
    """Return the number of threads that the run was computed with."""
    count: int = folder.read_json(source / STATE)["threads"]
    return count


def processes(source: Path) -> int:
    """Return the number of processes that the run was computed by."""
    count: int = folder.read_json(source / STATE).get("processes", 1)
    return count


def progress(source: Path) -> tuple[int, list[float]]:
    """Return how many updates were made, and the scores of the validations."""
    facts = folder.read_json(source / STATE)
    return facts["step"], [float.fromhex(score) for score in facts["scores"]]


def in_a_row(source: Path) -> int:
    """Return how many updates right before it were left out."""
    count: int = folder.read_json(source / STATE).get("in_a_row", 0)
    return count


def every(root: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    found = [path for path in root.glob("step-*") if re.fullmatch(r"step-\d{7,}", path.name)]
    return sorted(found, key=number)


def number(path: Path) -> int:
    """Return the update that a checkpoint was made after."""
    return int(path.name.removeprefix("step-"))


def remove(path: Path) -> None:
    """Delete a checkpoint; half of one is never taken for a whole one."""
    gone = path.with_name(f".{path.name}.gone")
    _move(path, gone)
    shutil.rmtree(gone)


def newest(root: Path) -> tuple[Path | None, list[Problem]]:
    """Return the newest checkpoint that is undamaged, and what is wrong with those after it.

    Damaged ones are set aside as ``step-N.damaged``.
    """
    for old in root.glob(".step-*.old"):  # the power went while it was written anew
        folder.recover(old.with_name(old.name.removeprefix(".").removesuffix(".old")))
    problems = []
    for path in reversed(every(root)):
        try:
            folder.verify(path)
        except Problem as problem:
            problems.append(problem)
            _move(path, path.with_name(path.name + ".damaged"))
        else:
            return path, problems
    return None, problems


def _move(path: Path, target: Path) -> None:
    """Rename a folder; one that already has the name goes."""
    shutil.rmtree(target, ignore_errors=True)
    path.rename(target)


def average(sources: Iterable[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights of several checkpoints (Vaswani 2017).

    Of one with a moving average, that is what counts.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for source in sources:
        folder.verify(source)
        kept = source / (AVERAGE if (source / AVERAGE).exists() else WEIGHTS)
        for key, tensor in load_file(kept).items():
            total[key] = total[key] + tensor.double() if key in total else tensor.double()
        count += 1
    return {key: (tensor / count).float() for key, tensor in total.items()}


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what is learned by name; a parameter that serves twice appears once."""
    return {name: value.detach().contiguous() for name, value in learned(model).items()}


def load_tensors(model: nn.Module, saved: Mapping[str, Tensor], where: Path) -> None:
    """Fill a model from saved parameters.

    Raises:
        Problem: names or shapes are not those of the model.
    """
    own = learned(model)
    if own.keys() != saved.keys():
        odd = sorted(own.keys() ^ saved.keys())
        raise Problem(f"its weights are of another model: {odd[0]} is in one alone", str(where))
    for name, parameter in own.items():
        if parameter.shape != saved[name].shape:
            ours, theirs = tuple(parameter.shape), tuple(saved[name].shape)
            raise Problem(f"{name} has shape {theirs}, the model wants {ours}", str(where))
    for name, parameter in own.items():
        parameter.data.copy_(saved[name])


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": tensor.contiguous()
        for index, values in state.items()
        for name, tensor in values.items()
    }


def _load_optimiser(optimiser: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in saved.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
