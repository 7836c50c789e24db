"""Reading texts with holes: symbols that are unknown at random."""

from __future__ import annotations

from typing import Literal, NamedTuple

from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.text.vocabulary import EOS, UNK
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.embeddings import TARGET, reading_instead
from transduce.train.objective.interface import Loss, Moment, Objective, ObjectiveBlueprint, Task


class TokenDropout(NamedTuple):
    """Word dropout: of the sources (Iyyer 2015) and of the targets that are read (Bowman 2016).

    What is dropped is read as the unknown symbol. Begin and end stay, and what is to be said or
    can be copied stays whole.
    """

    objective: Objective
    source: float
    target: float

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score what the objective within scores, after texts with holes."""

        def symbols(side: str, ids: Int[Tensor, "N T"]) -> Int[Tensor, "N T"]:
            rate = self.target if side == TARGET else self.source
            rows = batch.index.repeat_interleave(len(ids) // len(batch))
            missed = moment.chance(f"token dropout: {side}", rows, ids.shape[1]) < rate
            return ids.masked_fill(missed & (ids > EOS), UNK)

        with reading_instead(model, symbols=symbols):
            return self.objective(model, batch, moment)


class TokenDropoutBlueprint(ObjectiveBlueprint):
    """Read texts with holes: symbols that are unknown at random."""

    kind: Literal["token_dropout"] = "token_dropout"
    objective: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised when they are read"""
    source: float = Field(0.1, ge=0, lt=1)
    """share of the symbols of a source that are read as unknown"""
    target: float = Field(0.1, ge=0, lt=1)
    """share of the symbols of a target that are read as unknown; all are still to be said"""

    @model_validator(mode="after")
    def _drops(self) -> TokenDropoutBlueprint:
        if not self.source and not self.target:
            raise ValueError("nothing is dropped; raise source or target, or leave it out")
        return self

    def build(self, task: Task) -> TokenDropout:
        """Make it.

        Raises:
            Problem: targets are to have holes, and nothing within it reads a true target.
        """
        if self.target and not self.objective.reads:
            raise Problem(
                f"{self.objective.kind} alone reads answers of the model's own, and no true "
                "targets that could have holes; set target: 0, or write token_dropout inside, as "
                "the objective beside",
                "train.objective",
            )
        return TokenDropout(self.objective.build(task), self.source, self.target)
