"""What a model answers while it learns, how bad that is, and how likely the model finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from transduce.data.batch import Batch
from transduce.evaluate import BleuBlueprint, Metric, MetricBlueprint
from transduce.models.interface import Memory
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import draw_twice
from transduce.nn.recompute import recomputing
from transduce.search import Sample, StepwiseSearch
from transduce.search.interface import Batch as Asked
from transduce.search.stepwise import answers
from transduce.sequences import Sequences, positions
from transduce.text.vocabulary import BOS, EOS
from transduce.train.objective.interface import Moment, Objective, ObjectiveBlueprint, Task
from transduce.train.objective.passes import Pass, Table, evaluating, over_tables

Answers = list[list[int]]  # to one source, each to its end if it has one


@dataclass(frozen=True)
class Judge:
    """Says how bad answers to the texts of a batch are, by a metric of the whole answer."""

    metric: Metric
    task: Task

    def __call__(self, batch: Batch, candidates: Sequence[Answers]) -> list[list[float]]:
        """Return the risk of each candidate: a hundredth of an error rate, or of what 100 lack."""
        texts, references = list[str](), list[tuple[str, ...]]()
        for row, found in zip(batch.index.tolist(), candidates, strict=True):
            example = self.task.example(row)
            codec = self.task.target.reading(example.sources.get("source", ""), self.task.slots)
            texts += map(codec.decode, found)
            references += [example.references] * len(found)
        scores = map(self.metric.segment_score, self.metric.statistics(texts, references))
        better = self.metric.higher_is_better
        risks = iter([(100 - score if better else score) / 100 for score in scores])
        return [[next(risks) for _ in found] for found in candidates]


class JudgingBlueprint(ObjectiveBlueprint):
    """What objectives that judge whole answers have in common."""

    metric: MetricBlueprint = BleuBlueprint()
    """what says how good an answer is"""
    weight: float = Field(1.0, gt=0)
    """price of the expected risk"""
    objective: ObjectiveBlueprint | None = None
    """what is minimised besides; null for nothing"""

    @property
    def weighs(self) -> bool:
        """It does, if what stands beside it does."""
        return self.objective is None or self.objective.weighs

    @property
    def judges(self) -> bool:
        """It does."""
        return True

    @property
    def reads(self) -> bool:
        """It reads answers; what stands beside it may read targets."""
        return self.objective is not None and self.objective.reads

    @property
    def even(self) -> bool:
        """It searches."""
        return False

    def beside(self, task: Task) -> Objective | None:
        """Make what is minimised besides."""
        return None if self.objective is None else self.objective.build(task)


def found(search: StepwiseSearch, model: Seq2Seq, batch: Batch, task: Task) -> list[Answers]:
    """Return what a search answers to each source, with nothing dropped."""
    with torch.no_grad(), evaluating(model):
        limit = task.limit(batch.sources["source"].lengths)
        prompt = torch.full_like(batch.index, BOS)[:, None]
        asked = Asked(model.encode(batch.sources), prompt, limit, batch.index)
        hypotheses = next(answers(search, model, [asked], len(batch)))
    lengths, tokens = hypotheses.lengths.tolist(), hypotheses.tokens.tolist()
    return [
        [ids[:length] for ids, length in zip(*one, strict=True)]
        for one in zip(tokens, lengths, strict=True)
    ]


def sampled(samples: int, temperature: float, moment: Moment) -> Sample:
    """Return the search that draws answers; what it draws follows from the moment and the row."""
    seed = (moment.seed * 1_000_003 + moment.step) % 2**63
    return Sample(samples=samples, temperature=temperature, seed=seed)


def truths(batch: Batch) -> Answers:
    """Return the target of each example."""
    labels = batch.labels
    rows = zip(labels.data.tolist(), labels.lengths.tolist(), strict=True)
    return [ids[:length] for ids, length in rows]


def counts(batch: Batch) -> Float[Tensor, "B"]:
    """Return what each example counts: its target tokens, each by its weight."""
    labels, weights = batch.labels, batch.label_weights
    if weights is None:
        return labels.lengths.float()
    return weights.masked_fill(~labels.mask(), 0.0).sum(1)


class Scored(NamedTuple):
    """Candidates side by side; where a source has fewer than K, the rest means nothing."""

    log_probs: Float[Tensor, "B K"]  # with a gradient
    real: Bool[Tensor, "B K"]

    def aligned(self, values: Sequence[Sequence[float]]) -> Float[Tensor, "B K"]:
        """Return numbers about candidates as they lie here."""
        rows = [torch.tensor(row) for row in values]
        return pad_sequence(rows, batch_first=True).to(self.log_probs.device)


def score(model: Seq2Seq, batch: Batch, candidates: Sequence[Answers]) -> Scored:
    """Return how likely the model finds candidates, one of each source at a time.

    They are read again for their gradient, so that memory holds no more than one of each.
    """
    memory = model.encode(batch.sources)
    width, device = max(map(len, candidates)), batch.index.device
    columns = []
    for place in range(width):
        rows = [torch.tensor(one[place] if place < len(one) else [EOS]) for one in candidates]
        columns.append(
            checkpoint(
                _log_prob,
                model,
                memory,
                Sequences.stack(rows).to(device),
                use_reentrant=False,
                context_fn=draw_twice,
            )
        )
    many = torch.tensor([len(one) for one in candidates], device=device)
    return Scored(torch.stack(columns, 1), positions(width, device) < many[:, None])


def _log_prob(model: Seq2Seq, memory: Memory, labels: Sequences) -> Float[Tensor, "B"]:
    """Return the log-probability of a target of each source."""
    inputs = torch.cat([torch.full_like(labels.data[:, :1], BOS), labels.data[:, :-1]], 1)
    with recomputing(False):  # all of this is recomputed, so its layers need not be
        out, _ = model.decoder.extend(model.readable(inputs), model.decoder.start(memory))

    def chosen(said: Table, part: slice) -> Tensor:
        return said.gather(2, labels.data[:, part, None])[:, :, 0]

    found = torch.cat(over_tables(model, Pass(memory, out), chosen), 1)
    return found.masked_fill(~labels.mask(), 0.0).sum(1)
