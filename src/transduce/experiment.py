"""An experiment: everything that decides what a training run does, as one tree of blueprints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from transduce.blueprint import Blueprint
from transduce.data.read import CorpusBlueprint
from transduce.data.store import LimitsBlueprint
from transduce.data.stream import BatchBlueprint
from transduce.evaluate import BleuBlueprint, ChrfBlueprint, MetricBlueprint
from transduce.models.build import ModelBlueprint
from transduce.search.beam import Beam
from transduce.search.constrain import ConstraintBlueprint
from transduce.search.greedy import Greedy
from transduce.search.interface import SearchBlueprint
from transduce.search.length import Length
from transduce.text.codec import TextBlueprint
from transduce.train.faults import FaultsBlueprint
from transduce.train.objective import CrossEntropyBlueprint, ObjectiveBlueprint
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Setting
from transduce.train.signals import TimeLimit


class DataBlueprint(Blueprint):
    """The corpora; paths are relative to the experiment's file."""

    train: CorpusBlueprint
    """what the model learns from"""
    dev: CorpusBlueprint
    """what decides which of the models along the way is kept"""
    test: CorpusBlueprint | None = None
    """what the finished model is scored on"""
    limits: LimitsBlueprint = LimitsBlueprint()
    """how long a training example may be"""


class TrainBlueprint(Blueprint):
    """How the model learns."""

    max_steps: int = Field(10_000, ge=1)
    """updates to make"""
    batch: BatchBlueprint = BatchBlueprint()
    """what goes into one forward pass"""
    accumulate: int = Field(1, ge=1)
    """batches whose gradients make one update"""
    objective: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised"""
    optimiser: OptimiserBlueprint = OptimiserBlueprint()
    """how the weights are changed"""
    faults: FaultsBlueprint = FaultsBlueprint()
    """what happens to updates that are not numbers"""
    recompute: bool = False
    """compute what is inside each layer again for its gradient instead of keeping it: less memory,
    more time, the same bits"""
    precision: Setting = "auto"
    """number type of the matrix products; auto: bf16 where this machine computes faster in it"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto: on a GPU if there is one"""
    threads: int | None = Field(None, ge=1)
    """processor threads; one for each core if left out"""
    log_every: int = Field(50, ge=1)
    """updates between two lines of the journal"""
    time_limit: TimeLimit | None = None
    """time after which the run is saved and ends, such as 3 h, 90 min or 2 d, for machines that are
    lent; the same command goes on"""
    tensorboard: bool = False
    """also write for TensorBoard (extra: track)"""


class ValidationBlueprint(Blueprint):
    """When to look how good the model is, and what to do about it."""

    every: int = Field(500, ge=1)
    """updates between two validations; a checkpoint is saved at each"""
    examples: int = Field(500, ge=0)
    """dev examples to predict each time, spread evenly; 0: all (the loss always sees all)"""
    search: SearchBlueprint = Greedy()
    """how to predict them"""
    choose_by: Literal["metric", "loss"] = "metric"
    """what makes a model the best: the first of the metrics, or the loss on dev"""
    patience: int = Field(10, ge=0)
    """validations without a new best before training ends; 0: never"""
    keep: int = Field(3, ge=1)
    """best checkpoints to keep beside the last"""
    average: bool = True
    """at the end try the mean of the kept weights, and take it if it is better on dev"""
    samples: int = Field(3, ge=0)
    """dev examples whose predictions are shown and recorded each time"""


class PublishedBlueprint(Blueprint):
    """A score of somebody else on the same test set."""

    name: str
    """whose it is"""
    metric: str
    """kind of metric"""
    value: float
    """the score"""


class Experiment(Blueprint):
    """A training run."""

    seed: int = Field(1, ge=0)
    """decides all that is random"""
    parts: tuple[str, ...] = ()
    """Python files of your own that define further parts"""
    data: DataBlueprint
    """what to learn from"""
    text: TextBlueprint = TextBlueprint()
    """how text becomes numbers"""
    model: ModelBlueprint = ModelBlueprint()
    """the architecture"""
    train: TrainBlueprint = TrainBlueprint()
    """how the model learns"""
    validation: ValidationBlueprint = ValidationBlueprint()
    """how its progress is judged"""
    search: SearchBlueprint = Beam()
    """how the finished model predicts"""
    length: Length = Length()
    """how long answers may be"""
    constraints: tuple[ConstraintBlueprint, ...] = ()
    """what all its predictions have to obey, also those on dev"""
    metrics: tuple[MetricBlueprint, ...] = Field((BleuBlueprint(), ChrfBlueprint()), min_length=1)
    """what predictions are scored with"""
    published: tuple[PublishedBlueprint, ...] = ()
    """scores of others on the same test set, to be shown beside ours"""

    @model_validator(mode="after")
    def _copies_what_both_sides_have(self) -> Experiment:
        if self.model.head.copies and not self.text.joint:
            raise ValueError(
                f"model.head: {self.model.head.kind} copies symbols of the source, which needs one "
                "vocabulary; set text.joint: true, or model.head: linear"
            )
        return self

    @model_validator(mode="after")
    def _shares_what_both_sides_have(self) -> Experiment:
        for key, search in (("search", self.search), ("validation.search", self.validation.search)):
            if search.shares and not self.text.joint:
                raise ValueError(
                    f"{key}: {search.kind} takes symbols of the source for the answer, which needs "
                    f"one vocabulary; set text.joint: true, or {key}: greedy"
                )
        return self

    @model_validator(mode="after")
    def _ties_what_is_one(self) -> Experiment:
        if self.model.tie == "all" and not self.text.joint:
            raise ValueError(
                "model.tie: all makes one table of both sides, which needs one vocabulary; set "
                "text.joint: true, or model.tie: output"
            )
        return self
