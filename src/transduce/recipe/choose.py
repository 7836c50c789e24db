"""Choosing among several answers: by a metric, or by what other models say."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field, model_validator

from transduce.bayes_risk import Weights, least_risk
from transduce.blueprint import Blueprint
from transduce.evaluate import ChrfBlueprint, MetricBlueprint
from transduce.nn.packed import NumberType
from transduce.problem import Problem
from transduce.rerank import Asked, Witness, rerank
from transduce.result import Result
from transduce.search.interface import SearchBlueprint
from transduce.transducer import Transducer

Precision = NumberType | Literal["auto"]
Chooser = Callable[[Sequence[Result]], Sequence[Result]]

BLOCK = 64  # results that are looked at together


def by_block(results: Iterable[Result], chooser: Chooser, ahead: int) -> Iterator[Result]:
    """Yield what becomes of each result; no more than ``ahead`` are waited for."""
    waiting = iter(results)
    while block := list(islice(waiting, min(BLOCK, ahead))):
        yield from chooser(block)


class ChoiceBlueprint(Blueprint):
    """How an answer is chosen among several."""

    candidates: Annotated[int, Field(ge=2)] = 16
    """answers of the search to choose from"""

    @abstractmethod
    def chooser(self, search: SearchBlueprint, precision: Precision = "fp32") -> Chooser:
        """Return what makes of each result of that search the best of it and its alternatives.

        Models that are asked compute in numbers of that ``precision``.
        """


class RiskBlueprint(ChoiceBlueprint):
    """Minimum Bayes risk: the candidate that is expected to be best."""

    metric: MetricBlueprint = ChrfBlueprint()
    """what is good; all pairs of candidates are compared"""
    weights: Weights | None = None
    """how likely a candidate is to be right: posterior, as the model says; uniform, as often as
    drawn; null: uniform for samples, else posterior"""

    def chooser(self, search: SearchBlueprint, precision: Precision = "fp32") -> Chooser:
        """Return what finds the candidates of least risk.

        Raises:
            Problem: samples are to be weighed by what they were drawn by.
        """
        if self.weights == "posterior" and not search.distinct:
            raise Problem(
                f"{search.kind} draws an answer as often as it is likely, which posterior would "
                "count once more; leave it out, or set it to uniform",
                "risk.weights",
            )
        metric = self.metric.build()
        weights = self.weights or ("posterior" if search.distinct else "uniform")
        return lambda results: [least_risk(result, metric, weights) for result in results]


class WitnessBlueprint(Blueprint):
    """A model that is asked about the answers of another."""

    run: str
    """folder of a run or of a model"""
    weight: float = Field(1.0, gt=0)
    """of the mean log-probability of a symbol; that of the model itself has 1"""

    def load(self, asked: Asked, where: str, precision: Precision) -> Witness:
        """Load the model.

        Raises:
            Problem: there is none, or it is a language model and should not be, or is none.
        """
        model = Transducer.load(self.run, precision=precision)
        if model.panel.reads != (asked != "text"):
            wanted = "a language model, which has no" if asked == "text" else "a model that has an"
            raise Problem(f"{self.run} does not suit; name {wanted} encoder", f"{where}.run")
        return Witness(model, asked, self.weight)


class RerankBlueprint(ChoiceBlueprint):
    """Other models that have a say in which answer is best."""

    channel: WitnessBlueprint | None = None
    """a model from targets to sources: log p(x|y) (Yee 2019)"""
    language: WitnessBlueprint | None = None
    """a language model: log p(y) (Yee 2019)"""
    second: tuple[WitnessBlueprint, ...] = ()
    """models of the same task, such as one from right to left (Liu 2016): log p(y|x)"""

    @model_validator(mode="after")
    def _asks_somebody(self) -> RerankBlueprint:
        if not (self.channel or self.language or self.second):
            raise ValueError("nobody is asked; name a channel, a language or a second model")
        return self

    @property
    def witnesses(self) -> tuple[WitnessBlueprint, ...]:
        """All that are asked."""
        others = (self.channel, self.language)
        return (*self.second, *(model for model in others if model is not None))

    def chooser(self, search: SearchBlueprint, precision: Precision = "fp32") -> Chooser:
        """Return what finds the candidates that all models together find best."""
        asked: list[tuple[WitnessBlueprint | None, Asked, str]] = [
            *((model, "answer", "second") for model in self.second),
            (self.channel, "source", "channel"),
            (self.language, "text", "language"),
        ]
        witnesses = [
            model.load(what, f"rerank.{name}", precision) for model, what, name in asked if model
        ]
        return lambda results: rerank(results, witnesses)
