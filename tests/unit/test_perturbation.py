"""Token dropout and adversarial training: what is read instead, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import learning
import pytest
import torch
from learning import NOW
from pydantic import ValidationError

from transduce import tree
from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.train.objective import (
    AdversarialBlueprint,
    CrossEntropyBlueprint,
    Loss,
    Moment,
    Objective,
    RDropBlueprint,
    TokenDropoutBlueprint,
)
from transduce.train.objective.embeddings import reading_instead
from transduce.train.objective.passes import overhearing, reading

PLAIN = CrossEntropyBlueprint(smoothing=0.2)


def holes(name: str = "", **facts: Any) -> Objective:
    blueprint = TokenDropoutBlueprint(objective=PLAIN, **facts)
    return blueprint.build(learning.task(learning.batch(name)))


def ids_read(objective: Objective, model: Seq2Seq, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the symbols that reach the embeddings."""
    read: dict[str, torch.Tensor] = {}

    def note(side: str, ids: torch.Tensor) -> torch.Tensor:
        read[side] = ids
        return ids

    def noting(model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        with reading_instead(model, symbols=note):
            return PLAIN.build()(model, batch, moment)

    assert hasattr(objective, "_replace")
    objective._replace(objective=noting)(model, batch, NOW)
    return read


@pytest.mark.parametrize("name", learning.MODELS)
def test_what_is_dropped_is_read_as_unknown_and_nothing_else_changes(name: str) -> None:
    model, batch = learning.model(name, dropout=0.2), learning.batch(name)
    objective = holes(name, source=0.5, target=0.4)
    read = ids_read(objective, model, batch)
    masks = {side: read[side] == 0 for side in ("source", "target")}
    for side, true in (("source", batch.sources["source"]), ("target", batch.inputs)):
        known = model.readable(true.data)
        real = true.mask()
        assert torch.equal(read[side][real & ~masks[side]], known[real & ~masks[side]])
        assert (masks[side] & (known > 2) & real).any()
        assert not (masks[side] & real & ((true.data == 1) | (true.data == 2))).any()
    if name == "copying":  # there what is new is unknown in any case, and is still copied
        return
    by_hand = reading(
        replace(batch, sources={"source": replace(batch.sources["source"], data=read["source"])}),
        read["target"],
    )
    loss, grads = learning.learned(objective, model, batch)
    plain, expected = learning.learned(PLAIN.build(), model, by_hand)
    assert torch.equal(loss.total, plain.total)
    assert all(torch.equal(grads[key], expected[key]) for key in expected)


def test_words_that_are_dropped_can_still_be_copied() -> None:
    model, batch = learning.model("copying"), learning.batch("copying")
    with overhearing(model) as heard:
        loss = holes("copying", source=0.9, target=0.0)(model, batch, NOW)
    assert torch.equal(model.head.start(heard[0].memory).ids, batch.sources["source"].data)
    assert loss.nll < 100


def test_one_side_alone_may_be_read_with_holes() -> None:
    model, batch = learning.model("tied"), learning.batch()
    read = ids_read(holes(source=0.0, target=0.9), model, batch)
    assert torch.equal(read["source"], batch.sources["source"].data)
    assert not torch.equal(read["target"], batch.inputs.data)
    with pytest.raises(ValidationError, match="nothing is dropped"):
        TokenDropoutBlueprint(source=0, target=0)


def test_holes_depend_on_nothing_else_in_the_batch_and_twins_have_the_same() -> None:
    model, batch = learning.model("recurrent", dropout=0.1), learning.batch()
    objective = holes(source=0.5, target=0.5)
    whole = ids_read(objective, model, batch)
    for row in range(len(batch)):
        alone = ids_read(objective, model, tree.keep(batch, torch.tensor([row]), 1))
        for side in whole:
            assert torch.equal(alone[side][0], whole[side][row, : alone[side].shape[1]])
    twice = RDropBlueprint(objective=PLAIN).build(learning.task(batch))
    outside = TokenDropoutBlueprint(objective=RDropBlueprint()).build(learning.task(batch))
    assert outside._replace(objective=twice)(model, batch, NOW).total.isfinite()
    both = ids_read(objective, model, tree.widen(batch, 2))
    assert torch.equal(both["source"][::2], both["source"][1::2])


def moves(objective: Any, model: Seq2Seq, batch: Batch) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = objective._worst(model, batch, NOW)
    return found


@pytest.mark.parametrize("name", learning.MODELS)
def test_the_move_has_its_length_and_the_loss_grows_as_its_slope_says(name: str) -> None:
    model, batch = learning.model(name).double(), learning.batch(name)
    task = learning.task(batch)
    one, small = (
        AdversarialBlueprint(objective=PLAIN, size=size).build(task) for size in (1.0, 1e-3)
    )
    found = moves(one, model, batch)
    squares = sum(move.square().sum((1, 2)) for move in found.values())
    torch.testing.assert_close(squares, torch.ones(4).double(), atol=1e-5, rtol=0)
    # beyond the end of a source or target nothing is moved
    for side, text in (("source", batch.sources["source"]), ("target", batch.inputs)):
        assert not found[side][~text.mask()].any()
    clean = PLAIN.build()(model, batch)
    hurt = small(model, batch, NOW).total - clean.total
    slopes = by_differences(model, batch, found)
    assert float((hurt - clean.total).detach()) == pytest.approx(1e-3 * slopes, rel=0.05)


def by_differences(model: Seq2Seq, batch: Batch, along: dict[str, torch.Tensor]) -> float:
    """Return the slope of the loss along these moves, measured from both sides."""
    ends = []
    for sign in (1e-3, -1e-3):

        def moved(side: str, vectors: torch.Tensor, sign: float = sign) -> torch.Tensor:
            return vectors + sign * along[side]

        with reading_instead(model, vectors=moved):
            ends.append(float(PLAIN.build()(model, batch).total.detach()))
    return (ends[0] - ends[1]) / 2e-3


def test_no_other_move_of_that_length_hurts_more() -> None:
    model, batch = learning.model("transformer").double(), learning.batch()
    worst = moves(AdversarialBlueprint(objective=PLAIN).build(learning.task(batch)), model, batch)
    steepest = by_differences(model, batch, worst)
    for seed in range(20):
        torch.manual_seed(seed)
        other = {side: torch.randn_like(move) for side, move in worst.items()}
        norm = sum(move.square().sum((1, 2), keepdim=True) for move in other.values())
        assert isinstance(norm, torch.Tensor)
        other = {side: move / norm.sqrt() for side, move in other.items()}
        assert by_differences(model, batch, other) < steepest


def test_the_price_of_the_move_is_its_weight() -> None:
    model, batch = learning.model("recurrent"), learning.batch()
    task = learning.task(batch)
    light, heavy = (
        AdversarialBlueprint(objective=PLAIN, weight=weight).build(task)(model, batch, NOW)
        for weight in (0.5, 2.0)
    )
    clean = PLAIN.build()(model, batch)
    assert light.nll == heavy.nll == clean.nll
    added = float((light.total - clean.total).detach())
    assert float((heavy.total - clean.total).detach()) == pytest.approx(4 * added)
    assert added > 0.5 * float(clean.total.detach())
