"""What a validation means for a mixture whose shares follow it."""

from __future__ import annotations

import math
from typing import Protocol

from transduce.data.follow import Measured
from transduce.data.mixture import Mixed
from transduce.experiment import Experiment
from transduce.recipe.prepare import Prepared
from transduce.recipe.validate import Validation
from transduce.train.loop import TrainState
from transduce.train.parallel import Group
from transduce.train.progress import Show
from transduce.train.track import Record


class Run(Protocol):
    """What there is to know of a run (``transduce.recipe.run.Run``) here."""

    experiment: Experiment
    prepared: Prepared
    state: TrainState
    group: Group
    show: Show


def follow(run: Run, found: Validation | None) -> Record | None:
    """Let the mixture follow what the first process has ``found``; return how, for the journal.

    A validation that only the end of the run brought about counts for nothing, nor does a loss
    that is no number, so that the order of the data is the same wherever a run is cut in two.
    """
    rows, state = run.prepared.train, run.state
    if not isinstance(rows, Mixed) or rows.follow is None:
        return None
    losses = tuple(
        run.group.tell(found.losses[number] if found else 0.0) for number in range(len(rows.parts))
    )
    regular = state.step % run.experiment.validation.every == 0
    if not (regular and all(map(math.isfinite, losses))):
        return None
    epoch, batch = state.position
    state.course.append(Measured(epoch + (batch > 0), losses))
    epoch = state.course[-1].epoch
    turns = rows.following(state.course).shares(epoch).tolist()
    said = ", ".join(f"{count:,}" for count in turns)
    run.show.say(f"turns of the corpora from epoch {epoch} on: {said}")
    return {
        "kind": "mixture",
        "step": state.step,
        "epoch": epoch,
        "losses": list(losses),
        "turns": turns,
    }
