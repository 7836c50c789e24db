"""Predicting each token, and looking at the words that it is a translation of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.tap import Tap
from transduce.problem import Problem
from transduce.sequences import Sequences
from transduce.train.objective.cross_entropy import CrossEntropyBlueprint
from transduce.train.objective.interface import Loss, Moment, Objective, ObjectiveBlueprint, Task

WHERE: Final = "train.objective"
LEAST: Final = torch.finfo(torch.float32).tiny


class GuidedAlignment(NamedTuple):
    """Guided alignment (Chen 2016), for Transformers by one layer (Garg 2019).

    To the loss it adds ``weight`` times the cross-entropy between where the decoder should look
    and where it looks, the mean of the heads. A symbol that is aligned should look at all that it
    is aligned with, evenly; what others look at does not count.
    """

    objective: Objective
    weight: float
    layer: int | None

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        """Score what the objective within scores, and where the decoder looks to say it.

        Raises:
            Problem: there are no alignments, or the decoder does not look at source symbols.
        """
        if batch.alignment is None:
            raise Problem(
                "there are no alignments to teach; name them in data.train.alignment, or take the "
                "objective within guided_alignment alone",
                WHERE,
            )
        with _listening(_chosen(model, self.layer)) as heard:
            loss = self.objective(model, batch, moment)
        attention = _of_batch(heard, batch)
        missed = divergence(attention, batch.alignment, batch.label_weights)
        return Loss(loss.total + self.weight * missed, loss.nll)


def divergence(
    attention: Float[Tensor, "B T S"], alignment: Sequences, weights: Float[Tensor, "B T"] | None
) -> Float[Tensor, ""]:
    """Return the cross-entropy in nats between alignment and attention, summed over target symbols.

    That is -Σ log a[t, s] / n[t] over all aligned pairs (t, s), where n[t] is how many t has; each
    target symbol by its weight.
    """
    row, pair = alignment.mask().nonzero(as_tuple=True)
    said, read = alignment.data[row, pair].unbind(-1)
    counts = torch.zeros(attention.shape[:2], device=attention.device)
    counts.index_put_((row, said), torch.ones(len(row), device=counts.device), accumulate=True)
    share = 1 / counts[row, said]
    if weights is not None:
        share = share * weights[row, said]
    return -(share * attention[row, said, read].clamp_min(LEAST).log()).sum()


def _chosen(model: Seq2Seq, layer: int | None) -> Tap:
    """Return where the attention of a layer passes, by default that of the last but one.

    Raises:
        Problem: there is no such layer, or none at all.
    """
    parts = model.decoder.modules()
    taps = [part for part in parts if isinstance(part, Tap) and part.shows == "source attention"]
    if not taps:
        raise _blind()
    if layer is None:
        return taps[-2:][0]
    if layer > len(taps):
        raise Problem(
            f"attention to the source is in {len(taps)} layers of the decoder; choose one from 1 "
            f"to {len(taps)}, or leave it out",
            f"{WHERE}.layer",
        )
    return taps[layer - 1]


def _blind() -> Problem:
    return Problem(
        "guided_alignment teaches the decoder where to look, and this one never looks at single "
        "symbols of the source; take one with attention (a transformer, a convolutional one, or a "
        "recurrent one with an attention as its connection), or the objective within it alone",
        WHERE,
    )


@contextmanager
def _listening(tap: Tap) -> Iterator[list[Float[Tensor, "..."]]]:
    """Note what passes a tap within the block, with its gradient."""
    heard: list[Tensor] = []

    def note(_: nn.Module, __: tuple[Tensor], out: Tensor) -> None:
        heard.append(out)

    hook = tap.register_forward_hook(note)
    try:
        yield heard
    finally:
        hook.remove()


def _of_batch(heard: list[Tensor], batch: Batch) -> Float[Tensor, "B T S"]:
    """Return where the decoder looked in the last pass, the one that the loss is about.

    Raises:
        Problem: it was over something else than this batch.
    """
    if not heard:
        raise _blind()
    attention = heard[-1].float()
    attention = attention.mean(1) if attention.dim() == 4 else attention
    if attention.shape[:2] != batch.labels.data.shape:
        raise Problem(
            "guided_alignment goes by one pass over each target, and the objective within it makes "
            "none, or another number; write that one around it, or take cross_entropy",
            WHERE,
        )
    if attention.shape[2] != batch.sources["source"].size:
        raise Problem(
            f"the encoder makes {attention.shape[2]} states of {batch.sources['source'].size} "
            "symbols, and an alignment is of symbols; take an encoder that makes one of each",
            WHERE,
        )
    return attention


class GuidedAlignmentBlueprint(ObjectiveBlueprint):
    """Predict each token, and look at the words that it is known to be aligned with."""

    kind: Literal["guided_alignment"] = "guided_alignment"
    objective: ObjectiveBlueprint = CrossEntropyBlueprint()
    """what is minimised besides"""
    weight: float = Field(0.05, gt=0)
    """price of looking elsewhere, for each nat of cross-entropy"""
    layer: int | None = Field(None, ge=1)
    """the layer of the decoder whose attention is taught, the first being 1; null: the last but
    one, or the only one"""

    @property
    def aligns(self) -> bool:
        return True

    def build(self, task: Task) -> GuidedAlignment:
        """Make it."""
        return GuidedAlignment(self.objective.build(task), self.weight, self.layer)
