"""Saving a training run so that it can go on as if it had never stopped."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from transduce import folder
from transduce.data.follow import Measured
from transduce.data.stream import Position
from transduce.nn.addition import learned
from transduce.problem import Problem
from transduce.train.loop import TrainState
from transduce.train.parallel import ALONE, Group
from transduce.train.shares import Saved, beside, file_name, own, saved

WEIGHTS, OPTIMISER, STATE = "weights.safetensors", "optimiser.safetensors", "state.json"
AVERAGE = "average.safetensors"  # where a moving average is kept


def save(
    root: Path,
    state: TrainState,
    group: Group = ALONE,
    before: Callable[[], object] = lambda: None,
) -> Path:
    """Do what comes before, then write ``root/step-N`` whole or not at all.

    Where the model is shared out each other process has to call ``save_share`` meanwhile.

    Raises:
        OSError: some process cannot write.
        Problem: the processes write into different folders.
    """
    target, told = root / name(state.step), False

    def fill(fresh: Path) -> None:
        nonlocal told
        if group.shared:
            told = bool(group.tell(1))
            if failed := group.most(_write_own(fresh, state, group)):
                raise OSError(failed, os.strerror(failed), str(fresh))
            _see_all(fresh, group.size)
        else:
            _write(fresh, state, None, 1)
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
            "processes": group.size,
            "shares": group.size if group.shared else 1,
            "torch": torch.__version__,
        }
        if state.limit < math.inf:
            facts["limit"] = state.limit
        if state.scale != 1:
            facts["scale"] = state.scale
        if state.course:
            facts["course"] = [[one.epoch, *(x.hex() for x in one.losses)] for one in state.course]
        folder.write_json(fresh / STATE, facts)

    try:
        before()
        folder.write(target, fill)
    finally:
        if group.shared and not told:  # the others need not wait
            group.tell(0)
    return target


def save_share(root: Path, state: TrainState, group: Group) -> None:
    """Write what this process has while the first one saves; that one tells what goes wrong."""
    if group.tell(0):
        group.most(_write_own(folder.unfinished(root / name(state.step)), state, group))


def _write_own(fresh: Path, state: TrainState, group: Group) -> int:
    """Write the files of this process; return the system's number of what went wrong, or 0."""
    try:
        folder.make(fresh)
        for path in _write(fresh, state, group.rank, group.size):
            folder.force(path)
    except (OSError, SafetensorError) as error:
        return system_number(error) or errno.EIO
    return 0


def system_number(error: Exception) -> int | None:
    """Return the system's number of an error in writing, None if it is not the system's."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _write(fresh: Path, state: TrainState, rank: int | None, size: int) -> list[Path]:
    """Write what a process has; return where."""
    contents = {WEIGHTS: tensors(state.learner.model)}
    contents[OPTIMISER] = _optimiser_tensors(state.optimiser)
    if state.average is not None:
        contents[AVERAGE] = state.average.values
    paths = {fresh / file_name(name, rank, size): values for name, values in contents.items()}
    for path, values in paths.items():
        save_file({name: own(value).contiguous() for name, value in values.items()}, path)
    return list(paths)


def _see_all(fresh: Path, size: int) -> None:
    """Make sure that the files of all processes are in one folder.

    Raises:
        Problem: they are not.
    """
    for rank in range(size):
        if not (fresh / file_name(WEIGHTS, rank, size)).exists():
            raise Problem(
                f"process {rank + 1} of {size} writes its share elsewhere; let the run folder be "
                "on a disk that all machines have in common",
                str(fresh.parent),
            )


def name(step: int) -> str:
    """Return what the checkpoint of an update is called."""
    return f"step-{step:07d}"


def load(source: Path, state: TrainState) -> None:
    """Put a run back to where it was saved; the folder must have been verified."""
    facts = folder.read_json(source / STATE)
    shares, parameters = facts.get("shares", 1), learned(state.learner.model)
    with saved(source, WEIGHTS, shares) as found:
        load_tensors(state.learner.model, found.all(parameters), source / WEIGHTS)
    with saved(source, OPTIMISER, shares) as found:
        _load_optimiser(state.optimiser, found)
    if state.average is not None:
        with saved(source, AVERAGE, shares) as found:
            for key, value in found.all(parameters).items():
                state.average.values[key].copy_(value)
    state.position = Position(*facts["position"])
    state.step, state.tokens = facts["step"], facts["tokens"]
    state.seconds = float.fromhex(facts["seconds"])
    state.scores = [float.fromhex(score) for score in facts["scores"]]
    state.validated = facts.get("validated", state.step)
    state.left_out, state.in_a_row, state.returns = (
        facts.get(name, 0) for name in ("left_out", "in_a_row", "returns")
    )
    state.limit, state.scale = facts.get("limit", math.inf), facts.get("scale", 1.0)
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
        shares = folder.read_json(source / STATE).get("shares", 1)
        first = file_name(AVERAGE, 0 if shares > 1 else None, shares)
        with saved(source, AVERAGE if (source / first).exists() else WEIGHTS, shares) as found:
            for key, tensor in found.all({}).items():
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
    mine = {name: own(parameter) for name, parameter in learned(model).items()}
    if mine.keys() != saved.keys():
        odd = sorted(mine.keys() ^ saved.keys())
        raise Problem(f"its weights are of another model: {odd[0]} is in one alone", str(where))
    for name, parameter in mine.items():
        if parameter.shape != saved[name].shape:
            ours, theirs = tuple(parameter.shape), tuple(saved[name].shape)
            raise Problem(f"{name} has shape {theirs}, the model wants {ours}", str(where))
    for name, parameter in mine.items():
        parameter.data.copy_(saved[name])


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": tensor
        for index, values in state.items()
        for name, tensor in values.items()
    }


def _load_optimiser(optimiser: torch.optim.Optimizer, found: Saved) -> None:
    parameters = [value for group in optimiser.param_groups for value in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key in found.names:
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        state.setdefault(int(index), {})[name] = beside(found.read(key, parameter), parameter)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
