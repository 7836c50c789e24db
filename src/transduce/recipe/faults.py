"""What a run does about updates that are not numbers, and about memory that runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from transduce import folder
from transduce.bundle import Bundle
from transduce.data.batch import Batch
from transduce.data.rows import Rows
from transduce.data.stream import batches
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe.prepare import Prepared
from transduce.recipe.replay import FOLDER, keep
from transduce.recipe.writing import Writing
from transduce.train import checkpoint
from transduce.train.faults import Fault
from transduce.train.fitting import TooLarge
from transduce.train.loop import Plan, TrainState, Update, steps
from transduce.train.parallel import Group
from transduce.train.progress import Show
from transduce.train.track import Journal, Record

NAMED = 5  # examples of a faulty update that the journal names


class Run(Protocol):
    """What there is to know of a run (``transduce.recipe.run.Run``) and to ask of it here."""

    experiment: Experiment
    bundle: Bundle
    folder: Path
    prepared: Prepared
    show: Show
    state: TrainState
    plan: Plan
    journal: Journal
    writing: Writing
    group: Group

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""

    def rewind(self) -> None:
        """Forget what was written down after the update at which the run stands."""

    def note(self, record: Record) -> None:
        """Write a record into the journal."""


def updates(run: Run) -> Iterator[Update]:
    """Yield update after update; go back where too many in a row are not numbers.

    Where to is a function of the steps alone, so that a run that was stopped in between goes back
    to the same place.

    Raises:
        Problem: going back has not helped, or one example does not fit into the memory.
    """
    setting = run.experiment
    while True:
        if run.state.in_a_row >= setting.train.faults.in_a_row:
            _go_back(run)
        position, rows = run.state.position, run.prepared.train.following(run.state.course)
        stream = batches(rows, setting.train.batch, setting.seed, position)
        with naming(run.prepared.train):
            for update in steps(run.state, stream, run.plan, run.group):
                for process, size in enumerate(update.too_large, 1):
                    if size:
                        _tell_of_memory(run, process, size)
                if update.fault:
                    _note(run, update.fault)
                yield update
                if run.state.in_a_row >= setting.train.faults.in_a_row:
                    break
            else:
                return


@contextmanager
def naming(store: Rows) -> Iterator[None]:
    """Say of which example there is too much for the memory.

    Raises:
        Problem: that.
    """
    try:
        yield
    except TooLarge as error:
        raise Problem(
            "this example alone does not fit into the memory; set train.recompute: true, take a "
            "smaller model, or leave such examples out: data.limits and on_bad_line: skip",
            store.place(error.row),
        ) from None


def last_good(run: Run) -> Path | None:
    """Return the newest checkpoint of a regular validation that no faulty update stands before."""
    for path in reversed(checkpoint.every(run.checkpoints)):
        if checkpoint.number(path) % run.experiment.validation.every == 0:
            try:
                if checkpoint.in_a_row(path) == 0:
                    return path
            except Problem:  # damaged; who loads it will say so
                continue
    return None


def _agreed(run: Run) -> Path | None:
    """Return the last good checkpoint that the first process sees."""
    saved = last_good(run) if run.group.first else None
    step = int(run.group.tell(-1 if saved is None else checkpoint.number(saved)))
    return None if step < 0 else run.checkpoints / checkpoint.name(step)


def _go_back(run: Run) -> None:
    """Put the run back to its last good checkpoint, and lower its rate."""
    state, setting = run.state, run.experiment.train.faults
    at, left_out, returns = state.step, state.left_out, state.returns + 1
    saved = _agreed(run)
    if saved is None or returns > setting.returns:
        raise Problem(
            f"{state.in_a_row} updates in a row are not numbers at step {at}, after the run went "
            f"back {state.returns} times and lowered its rate; look for the cause with: transduce "
            f"replay {run.folder}, then begin anew with a lower train.optimiser.rate, a longer "
            "warmup or train.precision: fp32",
            str(run.folder / FOLDER),
        )
    folder.verify(saved)
    checkpoint.load(saved, state)
    state.left_out, state.returns, state.in_a_row = left_out, returns, 0
    if not run.group.first:
        return
    for path in reversed(checkpoint.every(run.checkpoints)):
        if checkpoint.number(path) > state.step:
            checkpoint.remove(path)
    before = [record for record in run.journal.read() if record["kind"] == "return"]
    run.rewind()
    kept = run.journal.read()
    factor = setting.cut**returns
    record = {
        "kind": "return",
        "step": state.step + 1,
        "from": at,
        "left_out": left_out,
        "rate_factor": factor,
    }
    for one in [*before, record]:
        if one not in kept:
            run.note(one)
    run.show.say(
        f"warning: {setting.in_a_row} updates in a row were not numbers: back from step {at} to "
        f"step {state.step}, and on with {factor:g} times the rate"
    )


def _note(run: Run, fault: Fault) -> None:
    """Write down that an update was left out, and keep what it takes to make it again."""
    run.group.gather(run.state.learner, run.bundle.model, None)
    if not run.group.first:
        return
    places = [place for batch in fault.batches for place in where(run.prepared.train, batch)]
    run.note(
        {
            "kind": "fault",
            "step": fault.step + 1,
            "loss": str(fault.total),
            "gradient_norm": str(fault.norm),
            "examples": places[:NAMED],
        }
    )
    kept: Path | None = None
    with run.writing.trying("the faulty update"):
        kept = keep(run.folder / FOLDER, fault, run.bundle.model, run.plan, places, run.group.size)
    cause = f"; to see why: transduce replay {kept}" if kept else ""
    run.show.say(
        f"warning: step {fault.step + 1} is left out: its loss is {fault.total:g} and the norm of "
        f"its gradient {fault.norm:g}{cause}"
    )


def where(store: Rows, batch: Batch) -> list[str]:
    """Return where the examples of a batch were read."""
    return [store.place(int(row)) for row in batch.index]


def _tell_of_memory(run: Run, process: int, size: int) -> None:
    step, many = run.state.step, run.group.size
    run.note({"kind": "memory", "step": step, "process": process, "positions": size})
    where = f" in process {process} of {many}" if many > 1 else ""
    run.show.say(
        f"warning: step {step}: memory ran out{where} for a batch of {size:,} positions; it was "
        "computed in parts, and so is any other of its size: nothing is left out; to spare the "
        "attempt lower train.batch.tokens"
    )
