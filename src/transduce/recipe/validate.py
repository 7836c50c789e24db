"""How good a model is on held-out data: its loss, and the metrics of what it predicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils import parametrize

from transduce.data.batch import Batch, Example
from transduce.evaluate import Metric, Score, evaluate
from transduce.models.seq2seq import Seq2Seq
from transduce.search.interface import SearchBlueprint
from transduce.train.fitting import Fitting
from transduce.train.precision import Precision
from transduce.transducer import Transducer


@dataclass(frozen=True)
class Validation:
    """Scores by name, and what was predicted."""

    scores: dict[str, float]
    quality: float  # higher is better; what decides between models
    predictions: list[str]
    losses: tuple[float, ...] = ()  # of each corpus of dev that is looked at by itself


class Summed(NamedTuple):
    """The negative log-likelihood of some targets in nats."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Of a target token."""
        return self.total / self.tokens


@parametrize.cached()  # an adapted weight is computed once, and not at each use
@torch.no_grad()
def loss(
    model: Seq2Seq, batches: Iterable[Batch], device: torch.device, precision: Precision
) -> Summed:
    """Return the negative log-likelihood of all target tokens.

    Raises:
        TooLarge: a single row does not fit into the memory.
    """
    model.eval()
    fitting = Fitting()

    def work(batch: Batch) -> float:
        with precision.autocast(device):
            moved = batch.to(device)
            return float(model(moved.sources, moved.inputs, moved.labels)[1])

    total, tokens = 0.0, 0
    for batch in batches:
        total, tokens = total + sum(fitting.compute([batch], work)), tokens + batch.tokens
    return Summed(total, tokens)


@parametrize.cached()  # an adapted weight is computed once, and not at each use
def predict_and_score(
    transducer: Transducer,
    examples: Sequence[Example],
    metrics: Sequence[Metric],
    search: SearchBlueprint,
    bootstrap: int = 0,
) -> tuple[list[str], list[Score]]:
    """Predict the sources of examples and score the predictions against all their references."""
    sources = [example.sources["source"] for example in examples]
    texts = [result.text for result in transducer(sources, search)]
    references = [example.references for example in examples]
    return texts, evaluate(metrics, texts, references, bootstrap)


def judge(
    dev_loss: float, scores: Sequence[Score], names: Sequence[str], choose_by: str
) -> tuple[dict[str, float], float]:
    """Return all scores by name, and the one that decides, turned so that higher is better."""
    by_name = {"loss": dev_loss, "perplexity": math.exp(min(dev_loss, 700.0))}
    by_name |= {name: score.value for name, score in zip(names, scores, strict=True)}
    if choose_by == "loss":
        return by_name, -dev_loss
    first = scores[0]
    return by_name, first.value if first.higher_is_better else -first.value


def spread(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` of ``count`` places at equal distances; all of them for 0."""
    if wanted == 0 or wanted >= count:
        return list(range(count))
    return [int(place) for place in np.linspace(0, count - 1, wanted)]


def sample_records(
    step: int, examples: Sequence[Example], predictions: Sequence[str], wanted: int
) -> list[dict[str, Any]]:
    """Return a few examples with what was predicted, for the journal."""
    return [
        {
            "step": step,
            "index": index,
            "source": examples[index].sources["source"],
            "references": list(examples[index].references),
            "prediction": predictions[index],
        }
        for index in (spread(len(examples), wanted) if wanted else [])
    ]
