"""The standard training run, from an experiment to a model folder and a report."""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from transduce.blueprint import dump
from transduce.experiment import Experiment, TrainBlueprint
from transduce.folder import alone
from transduce.problem import Problem
from transduce.recipe.finish import finish
from transduce.recipe.prepare import device, prepare
from transduce.recipe.run import Run
from transduce.recipe.start import resolve
from transduce.recipe.writing import writable
from transduce.train.parallel import Group, joined
from transduce.train.progress import Show, duration
from transduce.train.signals import Broken, listening


def train(experiment: Experiment, base: Path, folder: Path, show: Show) -> int:
    """Train, or go on with, the run in ``folder``; return the exit code.

    Paths in the experiment are relative to ``base``. 0: finished; 75: the time is over; 130, 138 or
    143: Ctrl-C, SIGUSR1 or SIGTERM asked for an end. After all but 0 the run is saved, and the same
    command goes on with it.

    Raises:
        Problem: something in the experiment, the data or the folder has to be put right.
    """
    experiment = resolve(experiment, base, folder)
    with writable(folder), _processes(experiment.train) as group:
        if not group.first:
            show = Show(quiet=True)
        _same_settings(experiment, group)
        if threads := experiment.train.threads or group.threads:
            torch.set_num_threads(threads)
        torch.manual_seed(experiment.seed)
        alone_ = alone(folder, wait=False) if group.first else nullcontext()
        with alone_, listening(experiment.train.time_limit) as stop:
            try:
                # one of several cannot break off what the others wait for
                with stop.at_once() if group.size == 1 else nullcontext():
                    with group.in_turn():
                        prepared = prepare(experiment, base, folder, show)
                    run = Run(experiment, folder, prepared, show, group)
                if not run.resume():
                    run.describe()
                run.learn(stop)
                run.require_saved()
                if stop:
                    return stop.exit_code
                if group.first:
                    with stop.at_once():
                        page = finish(run)
                    took = duration(run.state.seconds)
                    show.say(f"trained in {took}\nmodel: {folder / 'model'}\nreport: {page}")
            except Broken:
                show.say("stopped, and nothing is lost; train again to go on")
                return stop.exit_code
    return 0


def _processes(setting: TrainBlueprint) -> AbstractContextManager[Group]:
    """Join the processes that train together, if there are others."""
    return joined(device(setting.device), setting.sharding.group)


def _same_settings(experiment: Experiment, group: Group) -> None:
    """Refuse processes that were started with different settings: they would wait for ever."""
    own = zlib.crc32(dump(experiment).encode())
    if group.tell(own) != own:
        what = "this process was started with other settings than the first; give all the same"
        raise Problem(what, f"process {group.rank + 1} of {group.size}")


__all__ = ["train"]
