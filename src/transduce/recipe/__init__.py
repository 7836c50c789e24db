"""The standard training run, from an experiment to a model folder and a report."""

from __future__ import annotations

from pathlib import Path

import torch

from transduce.experiment import Experiment
from transduce.folder import alone
from transduce.recipe.finish import finish
from transduce.recipe.prepare import prepare
from transduce.recipe.run import Run
from transduce.recipe.start import resolve
from transduce.train.progress import Show, duration
from transduce.train.signals import listening


def train(experiment: Experiment, base: Path, folder: Path, show: Show) -> int:
    """Train, or go on with, the run in ``folder``; return the exit code.

    Paths in the experiment are relative to ``base``. 0: finished; 130 or 143: a signal asked for
    an end, the run is saved and the same command goes on with it.

    Raises:
        Problem: something in the experiment, the data or the folder has to be put right.
    """
    experiment = resolve(experiment, base)
    if experiment.train.threads:
        torch.set_num_threads(experiment.train.threads)
    torch.manual_seed(experiment.seed)
    with alone(folder, wait=False), listening() as stop:
        run = Run(experiment, folder, prepare(experiment, base, folder, show), show)
        if not run.resume():
            run.describe()
        run.learn(stop)
        if stop:
            show.say(f"stopped and saved at step {run.state.step}; train again to go on")
            return stop.exit_code
        page = finish(run)
    took = duration(run.state.seconds)
    show.say(f"trained in {took}\nmodel: {folder / 'model'}\nreport: {page}")
    return 0


__all__ = ["train"]
