"""A training run while it goes on: updates, validations, checkpoints, the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from transduce import folder
from transduce.data.batch import Example
from transduce.data.stream import Position, batches
from transduce.evaluate import Score
from transduce.experiment import Experiment
from transduce.recipe.card import card
from transduce.recipe.fit import check_lengths
from transduce.recipe.prepare import Prepared, device, environment
from transduce.recipe.task import task, untrained
from transduce.recipe.validate import (
    Validation,
    judge,
    loss,
    predict_and_score,
    sample_records,
    spread,
)
from transduce.train import checkpoint
from transduce.train.loop import Plan, TrainState, Update, steps
from transduce.train.objective import Learner
from transduce.train.precision import choose
from transduce.train.progress import Show
from transduce.train.signals import Stop
from transduce.train.track import Journal, Record, TensorBoard
from transduce.transducer import Transducer


@dataclass
class Best:
    """The kept checkpoints, best first."""

    kept: list[tuple[float, int]]

    def enter(self, quality: float, step: int, keep: int) -> bool:
        """Enter a checkpoint; return whether it is the best so far."""
        best = not self.kept or quality > self.kept[0][0]
        self.kept = sorted([*self.kept, (quality, step)], key=lambda pair: (-pair[0], pair[1]))
        del self.kept[keep:]
        return best


class Run:
    """A run that is going on: what it is made of, and where it writes."""

    def __init__(
        self, experiment: Experiment, folder_: Path, prepared: Prepared, show: Show
    ) -> None:
        self.experiment, self.folder = experiment, folder_
        self.prepared, self.show = prepared, show
        setting = experiment.train
        place = device(setting.device)
        self.bundle = untrained(experiment, prepared)
        check_lengths(self.bundle.model.longest, prepared)
        model = self.bundle.model.to(place)
        self.transducer = Transducer(self.bundle, place)
        learner = Learner(model, setting.objective.build(task(self.transducer, prepared.train)))
        self.state = TrainState(learner, setting.optimiser.build(model), Position(0, 0))
        self.plan = Plan(
            setting.optimiser,
            setting.max_steps,
            setting.accumulate,
            experiment.seed,
            place,
            choose(setting.precision, place),
            setting.recompute,
        )
        self.metrics = [metric.build() for metric in experiment.metrics]
        self.names = [metric.kind for metric in experiment.metrics]
        self.journal, self.samples = (
            Journal(folder_ / "train.jsonl"),
            Journal(folder_ / "samples.jsonl"),
        )
        self.board: TensorBoard | None = None
        self.best = Best([])

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def resume(self) -> bool:
        """Go back to the newest undamaged checkpoint; return whether there is one."""
        newest, problems = checkpoint.newest(self.checkpoints)
        for problem in problems:
            self.show.say(f"warning: {problem}; going back to the checkpoint before it")
        if newest is not None:
            self._restore(newest)
        for journal in (self.journal, self.samples):
            journal.rewind(self.state.step)
        if self.experiment.train.tensorboard:
            self.board = TensorBoard(self.folder / "tensorboard", self.state.step)
        for record in self.journal.read():
            if record["kind"] == "validation":
                self.best.enter(record["quality"], record["step"], self.experiment.validation.keep)
        return newest is not None

    def _restore(self, saved: Path) -> None:
        checkpoint.load(saved, self.state)
        if (before := checkpoint.threads(saved)) != torch.get_num_threads():
            self.show.say(
                f"warning: the run was computed with {before} threads and goes on with "
                f"{torch.get_num_threads()}; for the same bits set train.threads: {before}"
            )
        self.show.say(f"going on from step {self.state.step}")

    def describe(self) -> None:
        """Write down what is about to be trained, and where."""
        size = sum(parameter.numel() for parameter in self.bundle.model.parameters())
        facts = environment(str(self.plan.precision), str(self.plan.device))
        folder.write_json(self.folder / "environment.json", facts)
        folder.write_json(self.folder / "data.json", {**self.prepared.counts, "parameters": size})
        self.show.say(
            f"{size / 1e6:.1f} M parameters; {self.plan.precision} on {self.plan.device} "
            f"({self.plan.precision.reason}), {torch.get_num_threads()} threads"
        )

    def learn(self, stop: Stop) -> None:
        """Make updates until the end, an early end, or a signal; validate and save on the way."""
        setting = self.experiment
        stream = batches(
            self.prepared.train, setting.train.batch, setting.seed, self.state.position
        )
        window: list[Update] = []
        self.show.start(self.state.step, self.plan.steps)
        try:
            for update in steps(self.state, stream, self.plan):
                window.append(update)
                last = update.step == self.plan.steps
                if update.step % setting.train.log_every == 0 or last:
                    self._log(window)
                    window = []
                due = update.step % setting.validation.every == 0 or last
                if due:
                    self._validate()
                if stop and not due:
                    self._save()
                if stop or (due and self._exhausted()):
                    break
        finally:
            self.show.end()

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
        self._note(record)
        self.show.update(record, self.plan.steps, seconds / len(window))

    def _validate(self) -> None:
        """Score the model on dev, write that down, save, keep the best."""
        setting = self.experiment.validation
        found = self.measure()
        self.state.scores.append(found.quality)
        best = self.best.enter(found.quality, self.state.step, setting.keep)
        record = {
            "kind": "validation",
            "step": self.state.step,
            "scores": found.scores,
            "quality": found.quality,
            "best": best,
            "seconds": self.state.seconds,
        }
        examples = self.dev_sample()
        samples = sample_records(self.state.step, examples, found.predictions, setting.samples)
        self._note(record)
        for sample in samples:
            self.samples.add(sample)
        self._save()
        if best:
            self.save_model(checkpoint.tensors(self.bundle.model), [], f"step {self.state.step}")
        self.show.validation(record, samples)

    def measure(self) -> Validation:
        """Return how good the model is on dev as it stands."""
        setting = self.experiment.validation
        batches_ = self.prepared.dev_batches()
        dev_loss = loss(self.bundle.model, batches_, self.plan.device, self.plan.precision)
        predictions, scores = predict_and_score(
            self.transducer, self.dev_sample(), self.metrics, setting.search
        )
        by_name, quality = judge(dev_loss, scores, self.names, setting.choose_by)
        return Validation(by_name, quality, predictions)

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
        """Write a checkpoint and let go of those that are neither the last nor among the best."""
        saved = checkpoint.save(self.checkpoints, self.state)
        kept = {checkpoint.name(step) for _, step in self.best.kept} | {saved.name}
        for path in checkpoint.every(self.checkpoints)[:-2]:
            if path.name not in kept:
                checkpoint.remove(path)

    def _exhausted(self) -> bool:
        """Whether validation has not improved for as long as patience lasts."""
        patience, scores = self.experiment.validation.patience, self.state.scores
        if not patience or len(scores) <= patience:
            return False
        worn = max(scores[-patience:]) <= max(scores[:-patience])
        if worn:
            self.show.say(f"no better for {patience} validations: ending here")
        return worn

    def _note(self, record: Record) -> None:
        self.journal.add(record)
        if self.board:
            self.board.add(record)
