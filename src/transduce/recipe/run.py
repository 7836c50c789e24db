"""A training run while it goes on: updates, validations, checkpoints, the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch
from torch import Tensor

from transduce import folder
from transduce.data.batch import Example
from transduce.data.stream import Position
from transduce.evaluate import Score
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe.best import Best
from transduce.recipe.card import card
from transduce.recipe.faults import last_good, naming, updates
from transduce.recipe.fit import check_lengths
from transduce.recipe.follow import follow
from transduce.recipe.prepare import Prepared, device, environment, in_batches
from transduce.recipe.same import same_precision
from transduce.recipe.start import begin
from transduce.recipe.task import task, untrained
from transduce.recipe.validate import (
    Summed,
    Validation,
    judge,
    loss,
    predict_and_score,
    sample_records,
    spread,
)
from transduce.recipe.writing import Writing
from transduce.train import checkpoint
from transduce.train.bound import bound
from transduce.train.compiled import compile_layers
from transduce.train.loop import Plan, TrainState, Update
from transduce.train.moving_average import MovingAverage
from transduce.train.objective import Learner
from transduce.train.parallel import ALONE, Group
from transduce.train.precision import TYPES
from transduce.train.progress import Show
from transduce.train.signals import Broken, Stop
from transduce.train.track import Journal, Record, TensorBoard
from transduce.transducer import Transducer

CHECKPOINT, MODEL = "the checkpoint", "the model folder"


class Run:
    """A run that is going on: what it is made of, and where it writes."""

    def __init__(
        self,
        experiment: Experiment,
        folder_: Path,
        prepared: Prepared,
        show: Show,
        group: Group = ALONE,
    ) -> None:
        self.experiment, self.folder = experiment, folder_
        self.prepared, self.show, self.group = prepared, show, group
        setting = experiment.train
        place = group.place(device(setting.device))
        self.bundle = untrained(experiment, prepared)
        model, kept = self.bundle.model, folder_ if group.first else None
        for line in begin(model, prepared.codecs, experiment, folder_, group.first):
            show.say(line)
        check_lengths(model.longest, prepared)
        model = model.to(place)
        self.transducer = Transducer(self.bundle, place)
        setting.sharding.admit(setting.objective)
        objective = setting.objective.build(task(self.transducer, prepared.train, kept))
        learner = group.spread(Learner(model, objective))
        if setting.compile:
            compile_layers(learner.model)
        self.state = TrainState(learner, setting.optimiser.build(learner.model), Position(0, 0))
        if setting.moving_average is not None:
            self.state.average = MovingAverage(learner.model, setting.moving_average)
        self.plan = Plan(
            setting.optimiser,
            setting.max_steps,
            setting.accumulate,
            experiment.seed,
            place,
            same_precision(setting.precision, place, folder_),
            setting.recompute,
            setting.faults,
            bound(setting.memory, place, group.size),
        )
        self.metrics = [metric.build() for metric in experiment.metrics]
        self.names = [metric.kind for metric in experiment.metrics]
        self.journal, self.samples = (
            Journal(folder_ / "train.jsonl"),
            Journal(folder_ / "samples.jsonl"),
        )
        self.board: TensorBoard | None = None
        self.best = Best(experiment.validation.keep)
        self.writing = Writing(show)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def resume(self) -> bool:
        """Go back to the newest undamaged checkpoint; return whether there is one."""
        newest = self._agree()
        if newest is not None:
            self._restore(newest)
        self.group.same(self.state.learner.parameters())
        self._gather()
        self.rewind()
        return newest is not None

    def rewind(self) -> None:
        """Forget what was written down after the update at which the run stands.

        Where the best model so far is forgotten, the model folder holds the one before it.
        """
        if not self.group.first:
            return
        for journal in (self.journal, self.samples):
            with self.writing.trying(journal.path.name):
                journal.rewind(self.state.step)
        if self.experiment.train.tensorboard:
            self.board = TensorBoard(self.folder / "tensorboard", self.state.step)
        before, self.best = self.best, Best(self.experiment.validation.keep)
        for record in self.journal.read():
            if record["kind"] == "validation":
                self.best.enter(record["quality"], record["step"])
        if before.found and before.kept[0][1] > self.state.step:
            with self.writing.trying(MODEL):
                self._put_back_model()

    def _put_back_model(self) -> None:
        """Write the model folder of the best checkpoint that there is; remove it for none."""
        for _, step in self.best.kept:
            with suppress(Problem):  # it is damaged
                weights = checkpoint.average([self.checkpoints / checkpoint.name(step)])
                self.save_model(weights, [], f"step {step}")
                return
        if (self.folder / "model").exists():
            checkpoint.remove(self.folder / "model")

    def _agree(self) -> Path | None:
        """Return the newest undamaged checkpoint; compute in the precision of the first process."""
        newest, problems = checkpoint.newest(self.checkpoints) if self.group.first else (None, [])
        for problem in problems:
            self.show.say(f"warning: {problem}; going back to the checkpoint before it")
        step = self.group.tell(-1 if newest is None else checkpoint.number(newest))
        types = list(TYPES.values())
        agreed = int(self.group.tell(types.index(self.plan.precision.dtype)))
        if not self.group.first:  # what it measured beside the others says little
            precision = self.plan.precision._replace(dtype=types[agreed])
            self.plan = self.plan._replace(precision=precision)
        return None if step < 0 else self.checkpoints / checkpoint.name(int(step))

    def _restore(self, saved: Path) -> None:
        checkpoint.load(saved, self.state)
        if (before := checkpoint.threads(saved)) != torch.get_num_threads():
            self.show.say(
                f"warning: the run was computed with {before} threads and goes on with "
                f"{torch.get_num_threads()}; for the same bits set train.threads: {before}"
            )
        if (before := checkpoint.processes(saved)) != self.group.size:
            self.show.say(
                f"warning: the run was computed by {before} processes and goes on with "
                f"{self.group.size}; for the same bits start {before}"
            )
        self.show.say(f"going on from step {self.state.step}")

    def describe(self) -> None:
        """Write down what is about to be trained, and where."""
        if not self.group.first:
            return
        size = sum(parameter.numel() for parameter in self.bundle.model.parameters())
        facts = environment(str(self.plan.precision), str(self.plan.device))
        facts["processes"] = self.group.size
        folder.write_json(self.folder / "environment.json", facts)
        folder.write_json(self.folder / "data.json", {**self.prepared.counts, "parameters": size})
        many = f" in each of {self.group.size} processes" if self.group.size > 1 else ""
        many += ", which share the model out" if self.group.shared else ""
        self.show.say(
            f"{size / 1e6:.1f} M parameters; {self.plan.precision} on {self.plan.device} "
            f"({self.plan.precision.reason}), {torch.get_num_threads()} threads{many}"
        )

    def learn(self, stop: Stop) -> None:
        """Make updates until the end, an early end, or a signal; validate and save on the way."""
        setting = self.experiment
        if self.group.tell(not checkpoint.every(self.checkpoints)):
            self._save()  # there is always one to go back to
            self.require_saved()
        if self._due() and self.state.validated < self.state.step:
            self._validate(stop)  # a signal came in between
        if asked := stop.asked(self.group):
            self._stopped()
        if asked or self._exhausted():
            return
        window: list[Update] = []
        self.show.start(self.state.step, self.plan.steps)
        try:
            for update in updates(self):
                if window and window[-1].step >= update.step:
                    window = []  # the run went back
                if update.fault is None:
                    window.append(update)
                last = update.step == self.plan.steps
                if window and (update.step % setting.train.log_every == 0 or last):
                    self._log(window)
                    window = []
                if self._due():
                    self._validate(stop)
                if asked := stop.asked(self.group):
                    self._stopped()
                if asked or (self._due() and self._exhausted()):
                    break
        finally:
            self.show.end()

    def _due(self) -> bool:
        """Whether this update is one that a validation follows."""
        step = self.state.step
        return step % self.experiment.validation.every == 0 or step == self.plan.steps

    def _stopped(self) -> None:
        """Save the run as it stands, if it is not, and say so."""
        step, last = self.state.step, self.plan.steps
        if self.group.tell(not (self.checkpoints / checkpoint.name(step)).exists()):
            self._save()
        self.require_saved()
        self.show.say(f"stopped and saved at step {step} of {last}; train again to go on")

    def require_saved(self) -> None:
        """Make sure that the last checkpoint was written.

        Raises:
            Problem: it could not be.
        """
        if why := self.writing.failed.get(CHECKPOINT):
            before = checkpoint.every(self.checkpoints)
            raise Problem(
                f"step {self.state.step} could not be saved ({why}); make room or let it be "
                "written, then train again: it goes on "
                f"{f'from {before[-1].name}' if before else 'from the start'}",
                str(self.checkpoints),
            )

    def _log(self, window: Sequence[Update]) -> None:
        tokens = sum(update.tokens for update in window)
        seconds = sum(update.seconds for update in window)
        record = {
            "kind": "step",
            "step": self.state.step,
            "epoch": self.state.position.epoch,
            "loss": float(torch.stack([update.total for update in window]).sum()) / tokens,
            "nll": float(torch.stack([update.nll for update in window]).sum()) / tokens,
            "learning_rate": window[-1].rate,
            "gradient_norm": float(window[-1].norm),
            "tokens": self.state.tokens,
            "tokens_per_second": tokens / seconds,
            "seconds": self.state.seconds,
        }
        self.note(record)
        self.show.update(record, self.plan.steps, seconds / len(window))

    def _validate(self, stop: Stop) -> None:
        """Score the model on dev, write that down, save, keep the best; a signal comes first."""
        setting = self.experiment.validation
        found = None
        self._gather()
        if self.group.first:
            with suppress(Broken), stop.at_once(), self._averaged():
                found = self.measure()
        if not self.group.tell(found is not None):
            return
        self.state.scores.append(self.group.tell(found.quality if found else 0.0))
        self.state.validated = self.state.step
        if turns := follow(self, found):
            self.note(turns)
        if found is None:  # another process has it
            self._save()
            return
        best = self.best.enter(found.quality, self.state.step)
        record = {
            "kind": "validation",
            "step": self.state.step,
            "scores": found.scores,
            "quality": found.quality,
            "best": best,
            "seconds": self.state.seconds,
        }
        examples = self.dev_sample() if found.predictions else []
        samples = sample_records(self.state.step, examples, found.predictions, setting.samples)
        self.note(record)
        for sample in samples:
            with self.writing.trying(self.samples.path.name):
                self.samples.add(sample)
        self._save()
        if best:
            with self.writing.trying(MODEL):
                self.save_model(self.weights(), [], f"step {self.state.step}")
        self.show.validation(record, samples)

    def _averaged(self) -> AbstractContextManager[None]:
        """Return the context in which the model has the weights that it is judged by."""
        average = self.state.average
        if average is None or self.group.shared:
            return nullcontext()
        return average.in_place(self.bundle.model)

    def _gather(self) -> None:
        """Give the model, if it is shared out, the weights that it is judged by."""
        self.group.gather(self.state.learner, self.bundle.model, self.state.average)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that the model is judged by."""
        average = self.state.average
        if average is None or self.group.shared:
            return checkpoint.tensors(self.bundle.model)
        return average.values

    def measure(self) -> Validation:
        """Return how good the model is on dev as it stands."""
        setting = self.experiment.validation
        found: list[Summed] = []
        for part in self.prepared.dev_parts():
            where, precision = self.plan.device, self.plan.precision
            with naming(part):
                found.append(loss(self.bundle.model, in_batches(part), where, precision))
        dev_loss = sum(one.total for one in found) / sum(one.tokens for one in found)
        each = tuple(one.mean for one in found)
        if not self.experiment.model.encoder.reads:
            return Validation(*judge(dev_loss, [], [], setting.choose_by), [], each)
        predictions, scores = predict_and_score(
            self.transducer, self.dev_sample(), self.metrics, setting.search
        )
        by_name, quality = judge(dev_loss, scores, self.names, setting.choose_by)
        return Validation(by_name, quality, predictions, each)

    def save_model(
        self, weights: Mapping[str, Tensor], scores: Sequence[Score], origin: str
    ) -> None:
        """Write the model folder, with a card that says where the weights come from."""
        text = card(self.experiment, self.prepared.counts, scores, origin)
        self.bundle.save(self.folder / "model", weights, text)

    def dev_sample(self) -> list[Example]:
        """Return the dev examples that are predicted at a validation."""
        examples = self.prepared.dev
        return [examples[i] for i in spread(len(examples), self.experiment.validation.examples)]

    def _save(self) -> None:
        """Write a checkpoint; let go of those that are neither the last nor among the best."""
        if not self.group.first:
            if self.group.shared:
                checkpoint.save_share(self.checkpoints, self.state, self.group)
            return
        with self.writing.trying(CHECKPOINT):
            saved = checkpoint.save(self.checkpoints, self.state, self.group, self._force_journals)
            kept, best = {saved.name}, self.best.kept
            if good := last_good(self):  # going back there, the best are those of that time
                kept.add(good.name)
                best += self.best.until(checkpoint.number(good))
            kept |= {checkpoint.name(step) for _, step in best}
            for path in checkpoint.every(self.checkpoints)[:-2]:
                if path.name not in kept:
                    checkpoint.remove(path)

    def _force_journals(self) -> None:
        """Write down what a checkpoint stands for, before it."""
        for journal in (self.journal, self.samples):
            journal.force()

    def _exhausted(self) -> bool:
        """Whether validation has not improved for as long as patience lasts."""
        patience, scores = self.experiment.validation.patience, self.state.scores
        if not patience or len(scores) <= patience:
            return False
        worn = max(scores[-patience:]) <= max(scores[:-patience])
        if worn:
            self.show.say(f"no better for {patience} validations: ending here")
        return worn

    def note(self, record: Record) -> None:
        """Write a record into the journal."""
        if not self.group.first:
            return
        with self.writing.trying(self.journal.path.name):
            self.journal.add(record)
            if self.board:
                self.board.add(record)
