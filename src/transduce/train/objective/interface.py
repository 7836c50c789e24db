"""What training minimises: sums and counts, never means, so that the parts of a batch add up."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.data.batch import Batch, Example
from transduce.models.seq2seq import Seq2Seq
from transduce.search.noise import uniform
from transduce.sequences import positions
from transduce.text.codec import TextCodec


class Loss(NamedTuple):
    """Sums over the target tokens of a batch."""

    total: Float[Tensor, ""]  # what the gradient is taken of
    nll: Float[Tensor, ""]  # negative log-likelihood in nats, for people


class Moment(NamedTuple):
    """When a batch is learned from: all that changes or is random in an objective follows from it.

    So there is nothing to save, and a run that goes on is the run that was never stopped.
    """

    step: int = 0  # updates made before this one
    seed: int = 0  # of the run

    def chance(self, use: str, rows: Int[Tensor, "B"], size: int) -> Float[Tensor, "B T"]:
        """Return a number between 0 and 1 for each of ``size`` positions of rows of the corpus.

        It follows from the moment, the row, the position and what it is used for, and not from
        the batch or the device.
        """
        parts = (self.step, zlib.crc32(use.encode()))
        known = [torch.full_like(rows, part)[:, None] for part in parts]
        return uniform(self.seed, *known, rows[:, None], positions(size, rows.device))


FIRST: Final = Moment()


class Task(NamedTuple):
    """What an objective may have to know of a run, besides the model and a batch."""

    example: Callable[[int], Example]  # with all its references, by the row of the corpus
    target: TextCodec
    slots: int  # symbols behind the vocabulary, for what is new in each source
    limit: Callable[[Int[Tensor, "B"]], Int[Tensor, "B"]]  # most tokens, by source lengths
    others: Callable[[Sequence[str]], tuple[Seq2Seq, ...]]  # trained models of the same symbols


class Objective(Protocol):
    """Turns a model and a batch into a loss."""

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment, /) -> Loss:
        """Compute the loss of a batch.

        Raises:
            Problem: the model has not what this objective is about.
        """


class ObjectiveBlueprint(Part):
    """Slot for an objective."""

    @property
    def aligns(self) -> bool:
        """Whether it, or one within it, makes use of the alignments of examples."""
        return any(one.aligns for _, one in self if isinstance(one, ObjectiveBlueprint))

    @property
    def weighs(self) -> bool:
        """Whether it makes use of the weights of examples: as the objectives within it do."""
        within = [*self._within()]
        return bool(within) and all(one.weighs for one in within)

    @property
    def judges(self) -> bool:
        """Whether it judges whole answers by the references: as the objectives within it do."""
        return any(one.judges for one in self._within())

    @property
    def reads(self) -> bool:
        """Whether it reads the true targets of a batch: as one of the objectives within it does."""
        within = [*self._within()]
        return not within or any(one.reads for one in within)

    @property
    def even(self) -> bool:
        """Whether the passes through the model do not depend on what is in a batch, and one goes
        back: as those of the objectives within it."""
        return all(one.even for one in self._within())

    def _within(self) -> Iterator[ObjectiveBlueprint]:
        return (value for _, value in self if isinstance(value, ObjectiveBlueprint))

    @abstractmethod
    def build(self, task: Task) -> Objective:
        """Make it.

        Raises:
            Problem: what it needs besides model and data is missing or does not fit.
        """


class Learner(nn.Module):
    """A model and what it should minimise, as one module that anything can wrap."""

    def __init__(self, model: Seq2Seq, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, moment: Moment = FIRST) -> Loss:
        """Return the loss of a batch."""
        return self.objective(self.model, batch, moment)
