"""Tiny models, a batch and what an objective may ask, for the tests of objectives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, NamedTuple

import tiny
import torch
from jaxtyping import Int
from torch import Tensor

from transduce.data.batch import Batch, Example
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import MaskPool, drawing_from
from transduce.sequences import Sequences
from transduce.text.codec import CodecBlueprint, TextCodec
from transduce.train.objective import Loss, Moment, Objective, Task

SYMBOLS: Final = 9
NOW: Final = Moment(3, 5)
MODELS: Final[dict[str, dict[str, Any]]] = {
    **tiny.MODELS,
    "stepwise": tiny.STEPWISE,
    "copying": tiny.MODELS["transformer"] | {"head": {"kind": "pointer_generator", "new_words": 2}},
    "tied": tiny.MODELS["recurrent"] | {"tie": "all"},
}
CODEC: Final = TextCodec.learn(CodecBlueprint.model_validate({"tokens": "characters"}), ["abcdef"])


def model(name: str, dropout: float = 0.0, symbols: int = SYMBOLS) -> Seq2Seq:
    """Make one, in training."""
    torch.manual_seed(1)
    parts = dict(MODELS[name])
    for side in ("encoder", "decoder"):
        parts[side] = parts[side] | {"dropout": dropout}
    return build(ModelBlueprint.model_validate(parts), {"source": symbols, "target": symbols})


def batch(name: str = "", lengths: tuple[int, ...] = (6, 5, 3, 1)) -> Batch:
    """Make a batch, for a model that copies with words that are new."""
    torch.manual_seed(2)
    end = torch.tensor([2])
    rows = [torch.randint(3, SYMBOLS, (length,)) for length in lengths]
    for row in rows if name == "copying" else []:
        half = len(row) // 2
        row[:half] = SYMBOLS + torch.arange(half) % 2
    source = Sequences.stack([torch.cat([row, end]) for row in rows])
    target = Sequences.stack([torch.cat([torch.tensor([1]), row.flip(0), end]) for row in rows])
    return Batch({"source": source}, target, torch.arange(10, 10 + len(rows)))


def task(given: Batch, most: int = 8, others: tuple[Seq2Seq, ...] = ()) -> Task:
    """Return what an objective may ask; the texts of the batch are those of its symbols."""
    assert CODEC.size == SYMBOLS
    assert given.target is not None
    codec, rows = replace(CODEC, new=("x", "y")), given.index.tolist()
    sources, targets = (
        [codec.decode(ids[:size]) for ids, size in zip(*lists, strict=True)]
        for lists in (
            (side.data.tolist(), side.lengths.tolist())
            for side in (given.sources["source"], given.target)
        )
    )

    def example(row: int) -> Example:
        place = rows.index(row)
        return Example({"source": sources[place]}, (targets[place],), "here:1")

    def limit(lengths: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        return torch.full_like(lengths, most)

    return Task(example, CODEC, 2, limit, lambda _: others)


class Spy(NamedTuple):
    """An objective that notes what it is given."""

    objective: Objective
    seen: list[Batch]

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        self.seen.append(batch)
        return self.objective(model, batch, moment)


def learned(
    objective: Objective, model: Seq2Seq, batch: Batch, moment: Moment = NOW
) -> tuple[Loss, dict[str, Tensor]]:
    """Return the loss and its gradients, as an update draws what is random."""
    model.zero_grad()
    torch.manual_seed(moment.step)
    pool = MaskPool(moment.seed, size=1 << 16)
    pool.seek(moment.step)
    with drawing_from(pool):
        loss = objective(model, batch, moment)
    torch.autograd.backward(loss.total)
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss, grads


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], near: float = 1e-5) -> None:
    """Compare gradients."""
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=near, rtol=1e-4, msg=name)
