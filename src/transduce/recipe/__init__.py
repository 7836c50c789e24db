"""The standard training run, from an experiment to a model folder and a report."""

from __future__ import annotations

from pathlib import Path

import torch

from transduce.experiment import Experiment
from transduce.folder import alone
from transduce.recipe.finish import finish
from transduce.recipe.prepare import prepare
from transduce.recipe.run import Run
from transduce.recipe.writing import writable
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
    if experiment.train.threads:
        torch.set_num_threads(experiment.train.threads)
    torch.manual_seed(experiment.seed)
    with (
        writable(folder),
        alone(folder, wait=False),
        listening(experiment.train.time_limit) as stop,
    ):
        try:
            with stop.at_once():
                run = Run(experiment, folder, prepare(experiment, base, folder, show), show)
                if not run.resume():
                    run.describe()
            run.learn(stop)
            run.require_saved()
            if stop:
                return stop.exit_code
            with stop.at_once():
                page = finish(run)
        except Broken:
            show.say("stopped, and nothing is lost; train again to go on")
            return stop.exit_code
    took = duration(run.state.seconds)
    show.say(f"trained in {took}\nmodel: {folder / 'model'}\nreport: {page}")
    return 0


__all__ = ["train"]
