"""What is to be learned, as a model and its objective have to know it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from transduce.bundle import Bundle, BundleBlueprint, require_same_target
from transduce.data.batch import Example
from transduce.data.rows import Rows
from transduce.experiment import Experiment
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.recipe.prepare import Prepared
from transduce.recipe.same import same_models
from transduce.recipe.start import addendum
from transduce.train.objective import Task
from transduce.transducer import Transducer


def untrained(experiment: Experiment, prepared: Prepared) -> Bundle:
    """Return the model of an experiment before it has learned anything."""
    blueprint = BundleBlueprint(
        model=experiment.model,
        search=experiment.search,
        length=experiment.length,
        constraints=experiment.constraints,
        joint=experiment.one_vocabulary,
        longest=prepared.longest,
    )
    return Bundle.make(blueprint, prepared.codecs, addendum(experiment))


def task(student: Transducer, rows: Rows, run: Path | None = None) -> Task:
    """Return what an objective may ask about a model and the corpus that it learns from.

    A ``run`` folder remembers which other models it asks, and goes on with the same alone.
    """

    def example(row: int) -> Example:
        return rows.example(rows.index(row))

    def others(folders: Sequence[str]) -> tuple[Seq2Seq, ...]:
        if run is not None:
            same_models(folders, run)
        return tuple(_other(student, folder) for folder in folders)

    panel = student.panel
    limit = partial(panel.limit, length=student.length)
    return Task(example, student.target, panel.slots, limit, others)


def _other(student: Transducer, folder: str) -> Seq2Seq:
    """Return a trained model that reads and says the same symbols; it will not change any more.

    Raises:
        Problem: there is none, or it has other vocabularies.
    """
    bundle = Transducer.load(folder, str(student.device)).bundle
    require_same_target(student.bundle, bundle, folder)
    ours, theirs = (one.codecs["source"] for one in (student.bundle, bundle))
    if ours.fingerprint != theirs.fingerprint:
        raise Problem(
            "its source vocabulary is not that of the model that learns, and both read the same "
            "symbols; train both with the same source text and settings",
            folder,
        )
    return bundle.model.requires_grad_(False)
