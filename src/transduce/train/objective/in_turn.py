"""One objective after another."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.interface import Loss, Moment, Objective, ObjectiveBlueprint, Task


class InTurn(NamedTuple):
    """One objective up to an update, and another from then on."""

    first: Objective
    updates: int
    then: Objective

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Ask the one whose turn it is."""
        chosen = self.first if moment.step < self.updates else self.then
        return chosen(model, batch, moment)


class InTurnBlueprint(ObjectiveBlueprint):
    """One objective up to an update, and another from then on."""

    kind: Literal["in_turn"] = "in_turn"
    first: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised at first"""
    updates: int = Field(ge=1)
    """for how many updates"""
    then: ObjectiveBlueprint
    """what is minimised after them; it sees the number of the update in the whole run"""

    def build(self, task: Task) -> InTurn:
        """Make it."""
        return InTurn(self.first.build(task), self.updates, self.then.build(task))
