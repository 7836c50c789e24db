"""An experiment: everything that decides what a training run does, as one tree of blueprints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from transduce.adapt import AdaptBlueprint, StartBlueprint
from transduce.blueprint import Blueprint
from transduce.data.corpora import CorpusBlueprint
from transduce.data.curriculum import GivenBlueprint
from transduce.data.mixture import MixtureBlueprint
from transduce.data.monolingual import MonolingualBlueprint
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
from transduce.train.bound import Memory
from transduce.train.faults import FaultsBlueprint
from transduce.train.objective import CrossEntropyBlueprint, ObjectiveBlueprint
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Setting
from transduce.train.sharding import ShardingBlueprint, WholeBlueprint
from transduce.train.signals import TimeLimit

CORPORA = (MonolingualBlueprint,)  # beside those of the slot's own file


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

    @model_validator(mode="after")
    def _follows_what_is_measured(self) -> DataBlueprint:
        for name, corpus in (("dev", self.dev), ("test", self.test)):
            if isinstance(corpus, MixtureBlueprint) and corpus.follow:
                raise ValueError(f"{name}.follow: shares are about training alone; leave it out")
        if not isinstance(self.train, MixtureBlueprint) or self.train.follow is None:
            return self
        count = len(self.train.of)
        if not isinstance(self.dev, MixtureBlueprint) or len(self.dev.of) != count:
            raise ValueError(
                "train.follow: each corpus is followed by its loss on a dev set of its own; make "
                f"dev a mixture of {count}, in the order of those to learn from"
            )
        return self

    @model_validator(mode="after")
    def _is_scored_on_what_does_not_change(self) -> DataBlueprint:
        if self.test is not None and self.test.denoises:
            raise ValueError(
                "test: what a noise makes of a text is drawn, and no test set; leave it out, the "
                "scores on dev say how well noise is undone"
            )
        for name, corpus in (("dev", self.dev), ("test", self.test)):
            if corpus is not None and corpus.weighted:
                raise ValueError(f"{name}: weights count in training alone; leave weight out")
            if corpus is not None and corpus.graded:
                raise ValueError(f"{name}: a curriculum is of training alone; leave ease out")
            if corpus is not None and corpus.aligned:
                raise ValueError(f"{name}: alignments teach in training alone; leave them out")
        return self


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
    moving_average: float | None = Field(None, gt=0, lt=1)
    """share that the moving average of the weights keeps at each update, such as 0.999; what is
    validated and kept is then that average. null: the weights themselves"""
    faults: FaultsBlueprint = FaultsBlueprint()
    """what happens to updates that are not numbers"""
    recompute: bool = False
    """compute what is inside each layer again for its gradient instead of keeping it: less memory,
    more time, the same bits"""
    compile: bool = False
    """let torch compile each layer of a Transformer or of convolutions, meant for GPUs: a minute or
    more at the start, then fewer kernels; the same but for rounding"""
    memory: Memory | None = None
    """what this process may take of a computer's memory, such as 6 GB; batches that would take more
    are computed in parts. auto: most of what is free at the start; null: no bound"""
    sharding: ShardingBlueprint = WholeBlueprint()
    """what of the model each of several processes holds; it may change while a run goes on"""
    precision: Setting = "auto"
    """number type of the matrix products; auto: bf16 (fp16 on a GPU without it) if faster"""
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
    start: StartBlueprint | None = None
    """a trained model to begin from; null begins from nothing"""
    adapt: AdaptBlueprint | None = None
    """what is added to that model and learns alone; null lets all of it learn"""
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

    @property
    def _joint(self) -> bool:
        """Whether one vocabulary is known to serve both sides, or will be when the base is read."""
        return self.text.joint or (self.start is not None and "text" not in self.model_fields_set)

    @model_validator(mode="after")
    def _adapts_what_is_there(self) -> Experiment:
        if self.adapt is None:
            return self
        whole = self.start and (self.start.take, self.start.vocabulary)
        if whole != (StartBlueprint(run="").take, "keep"):
            raise ValueError(
                f"adapt: {self.adapt.kind} is added to a whole model that is trained already; "
                "name it in start.run, and leave start.take and start.vocabulary out"
            )
        return self

    @model_validator(mode="after")
    def _spares_what_was_learned(self) -> Experiment:
        optimiser = self.train.optimiser
        if optimiser.frozen and self.start is None:
            raise ValueError(
                "train.optimiser.frozen: a run that begins from nothing would keep random weights; "
                "say start.run, or leave it out"
            )
        if optimiser.frozen and self.adapt is not None:
            raise ValueError(
                f"train.optimiser.frozen: nothing but the {self.adapt.kind} learns anyway; "
                "leave it out, or say where to adapt by adapt.parts"
            )
        return self

    @model_validator(mode="after")
    def _copies_what_both_sides_have(self) -> Experiment:
        if self.model.head.copies and not self._joint:
            raise ValueError(
                f"model.head: {self.model.head.kind} copies symbols of the source, which needs one "
                "vocabulary; set text.joint: true, or model.head: linear"
            )
        return self

    @model_validator(mode="after")
    def _shares_what_both_sides_have(self) -> Experiment:
        for key, search in (("search", self.search), ("validation.search", self.validation.search)):
            if search.shares and not self._joint:
                raise ValueError(
                    f"{key}: {search.kind} takes symbols of the source for the answer, which needs "
                    f"one vocabulary; set text.joint: true, or {key}: greedy"
                )
            if search.aided:
                raise ValueError(
                    f"{key}: {search.kind} asks a smaller model as well, and a run has none; "
                    f"set {key}: greedy, and name the other to predict: drafter=RUN"
                )
        return self

    @model_validator(mode="after")
    def _ties_what_is_one(self) -> Experiment:
        if self.model.tie == "all" and not self._joint:
            raise ValueError(
                "model.tie: all makes one table of both sides, which needs one vocabulary; set "
                "text.joint: true, or model.tie: output"
            )
        return self

    @model_validator(mode="after")
    def _writes_what_it_reads(self) -> Experiment:
        made_of_target = self.data.train.denoises or self.data.dev.denoises
        if made_of_target and (not self._joint or self.model.head.slots):
            raise ValueError(
                "data: denoise reads and writes one text, and what the noise takes away cannot be "
                "copied; set text.joint: true, and leave model.head.new_words out"
            )
        return self

    @model_validator(mode="after")
    def _learns_from_what_it_is_given(self) -> Experiment:
        if self.data.train.weighted and not self.train.objective.weighs:
            raise ValueError(
                f"train.objective: {self.train.objective.kind} makes no use of the weights of "
                "examples; take cross_entropy, or leave weight out of data.train"
            )
        if self.data.train.divides and self.train.objective.judges:
            raise ValueError(
                f"train.objective: {self.train.objective.kind} judges answers by references, and "
                "noise that divides a text draws the target anew in every epoch; take "
                "cross_entropy, or noise that leaves the target whole"
            )
        if self.data.train.aligned and not self.train.objective.aligns:
            raise ValueError(
                f"train.objective: {self.train.objective.kind} makes no use of alignments; take "
                "guided_alignment, or leave alignment out of data.train"
            )
        if self.train.objective.aligns and not self.data.train.aligned:
            raise ValueError(
                "train.objective: guided_alignment has no alignments to teach; name them in "
                "data.train.alignment, or take the objective within it alone"
            )
        if self.train.batch.curriculum and isinstance(self.data.train, MixtureBlueprint):
            raise ValueError(
                "train.batch.curriculum: the temperature of a mixture says whose turn it is; take "
                "one corpus, which may have several files, or no curriculum"
            )
        self._has_what_its_curriculum_goes_by()
        return self

    def _has_what_its_curriculum_goes_by(self) -> None:
        curriculum = self.train.batch.curriculum
        given = isinstance(curriculum, GivenBlueprint)
        if given and not self.data.train.graded:
            raise ValueError(
                "train.batch.curriculum: nobody says how easy the examples are; name it in "
                "data.train.ease, or take another curriculum"
            )
        if self.data.train.graded and not given:
            other = f"{curriculum.kind} does not ask" if curriculum else "there is none that asks"
            raise ValueError(
                f"train.batch.curriculum: {other} how easy examples are; set it to given, or leave "
                "data.train.ease out"
            )

    @property
    def one_vocabulary(self) -> bool:
        """Whether one vocabulary serves both sides, or there is one side alone."""
        return self.text.joint or not self.model.encoder.reads

    @model_validator(mode="after")
    def _reads_what_there_is(self) -> Experiment:
        if self._inherits:
            return self
        reads = self.model.encoder.reads
        corpora = {"train": self.data.train, "dev": self.data.dev, "test": self.data.test}
        for name, corpus in corpora.items():
            if corpus is not None and reads and not corpus.paired:
                raise ValueError(
                    f"data.{name}: {corpus.kind} text has no sources that the encoder could read; "
                    "give pairs, or set model.encoder: none for a language model"
                )
            if corpus is not None and corpus.paired and not reads:
                raise ValueError(
                    f"data.{name}: a model without an encoder reads no sources; give text alone: "
                    "{kind: monolingual, path: FILE}"
                )
        return self

    @model_validator(mode="after")
    def _judges_what_there_is(self) -> Experiment:
        if self.model.encoder.reads or self._inherits:
            return self
        if self.validation.choose_by == "metric":
            raise ValueError(
                "validation.choose_by: a language model has no answers that metrics could score; "
                "set it to loss"
            )
        if any(one.begins for one in self.constraints):
            raise ValueError(
                "constraints: a language model goes on with the text itself, and its answers begin "
                "with that; leave the prefix out"
            )
        metrics = Experiment.model_fields["metrics"].default
        for key, unused in (
            ("metrics", self.metrics != metrics),
            ("validation.search", self.validation.search != Greedy()),
            ("validation.examples", self.validation.examples != ValidationBlueprint().examples),
        ):
            if unused:
                raise ValueError(f"{key}: a language model is judged by its loss; leave it out")
        if self.train.batch.curriculum:
            raise ValueError(
                "train.batch.curriculum: it goes by sources, and a language model has none; leave "
                "it out"
            )
        return self

    @property
    def _inherits(self) -> bool:
        """Whether the model is the base's, and looked at when that is read."""
        return self.start is not None and "model" not in self.model_fields_set
