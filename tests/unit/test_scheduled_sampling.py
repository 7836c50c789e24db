"""Scheduled sampling: how often, of what, and what that is when done one token after another."""

from __future__ import annotations

import math
from typing import Final

import learning
import pytest
import torch
from learning import NOW

from transduce import tree
from transduce.data.batch import Batch
from transduce.models.seq2seq import Seq2Seq
from transduce.search.noise import draw
from transduce.sequences import Sequences
from transduce.train.objective import (
    CrossEntropyBlueprint,
    ExponentialDecay,
    InverseSigmoidDecay,
    LinearDecay,
    Loss,
    Moment,
    ScheduledSamplingBlueprint,
)
from transduce.train.objective.scheduled_sampling import ScheduledSampling

NEVER: Final = LinearDecay(updates=1)  # after the first update no true token is read
HALF: Final = LinearDecay(updates=1, floor=0.5)


def made(**facts: object) -> ScheduledSampling:
    blueprint = ScheduledSamplingBlueprint.model_validate(facts)
    return blueprint.build(learning.task(learning.batch()))


def read(objective: ScheduledSampling, model: Seq2Seq, batch: Batch) -> torch.Tensor:
    """Return the tokens that are read instead."""
    spy = learning.Spy(objective.objective, [])
    objective._replace(objective=spy)(model, batch, NOW)
    return spy.seen[0].inputs.data


def test_decays_are_those_of_the_paper() -> None:
    line, power = LinearDecay(updates=100, floor=0.2), ExponentialDecay(base=0.9)
    assert [line.at(step) for step in (0, 50, 100, 200)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert [power.at(step) for step in (0, 1, 7)] == pytest.approx([1, 0.9, 0.9**7])
    sigmoid = InverseSigmoidDecay(scale=20)
    for step in (0, 1, 60, 100):
        assert sigmoid.at(step) == pytest.approx(20 / (20 + math.exp(step / 20)))
    assert sigmoid.at(10**9) == pytest.approx(0)
    assert sigmoid.at(round(20 * math.log(20))) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", learning.MODELS)
def test_with_probability_one_it_is_teacher_forcing_bit_for_bit(name: str) -> None:
    model, batch = learning.model(name, dropout=0.3), learning.batch(name)
    start = Moment(0, 5)
    assert NEVER.at(0) == 1
    loss, grads = learning.learned(made(truth=NEVER), model, batch, start)
    plain, expected = learning.learned(CrossEntropyBlueprint().build(), model, batch, start)
    assert torch.equal(loss.total, plain.total)
    assert torch.equal(loss.nll, plain.nll)
    assert all(torch.equal(grads[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", learning.MODELS)
def test_one_pass_is_what_teacher_forcing_says(name: str) -> None:
    model, batch = learning.model(name), learning.batch(name)
    found = read(made(truth=NEVER, choice="best"), model, batch)
    with torch.no_grad():
        state = model.start(model.encode(batch.sources))
        said = model.extend(batch.inputs.data, state)[0].argmax(-1)
    for row, size in enumerate(batch.inputs.lengths.tolist()):
        assert found[row, :size].tolist() == [1, *said[row, : size - 1].tolist()]


@pytest.mark.parametrize("choice", ["sampled", "best"])
@pytest.mark.parametrize("name", learning.MODELS)
def test_as_many_passes_as_tokens_are_saying_them_one_by_one(name: str, choice: str) -> None:
    model, batch = learning.model(name), learning.batch(name)
    truth, rows = batch.inputs.data, batch.index
    size = truth.shape[1]
    found = read(made(truth=HALF, choice=choice, passes=size), model, batch)
    kept = NOW.chance("what is read", rows, size) < 0.5
    chance = NOW.chance("what is said", rows, size)
    assert 0 < kept[:, 1:].sum() < kept[:, 1:].numel()
    with torch.no_grad():
        state, token = model.start(model.encode(batch.sources)), truth[:, 0]
        for place in range(size):
            real = batch.inputs.lengths > place
            assert torch.equal(found[real, place], token[real])
            said, state = model.extend(token[:, None], state)
            drawn = draw(said.exp(), chance[:, place, None, None])[:, 0, 0]
            own = said[:, 0].argmax(-1) if choice == "best" else drawn
            if place + 1 < size:
                token = torch.where(kept[:, place + 1], truth[:, place + 1], own)


@pytest.mark.parametrize("name", ["transformer", "copying"])
def test_what_is_scored_are_the_true_labels_after_what_was_read(name: str) -> None:
    model, batch = learning.model(name), learning.batch(name)
    objective = made(truth=NEVER, objective={"kind": "cross_entropy", "smoothing": 0.2})
    inputs = read(objective, model, batch)
    assert not torch.equal(inputs, batch.inputs.data)
    loss, grads = learning.learned(objective, model, batch)

    def by_hand(model: Seq2Seq, batch: Batch, _: Moment) -> Loss:
        mixed = Sequences(inputs, batch.inputs.lengths)
        return Loss(*model(batch.sources, mixed, batch.labels, 0.2))

    plain, expected = learning.learned(by_hand, model, batch)
    assert torch.equal(loss.total, plain.total)
    learning.assert_near(grads, expected)


def test_what_is_read_depends_on_nothing_else_in_the_batch() -> None:
    model, batch = learning.model("recurrent"), learning.batch()
    objective = made(truth=HALF)
    whole = read(objective, model, batch)
    for row in range(len(batch)):
        alone = tree.keep(batch, torch.tensor([row]), 1)
        size = int(batch.inputs.lengths[row])
        assert torch.equal(read(objective, model, alone)[0, :size], whole[row, :size])


def test_the_share_of_true_tokens_and_of_drawn_ones_is_as_asked_for() -> None:
    rows = torch.arange(2000)
    chance = NOW.chance("what is read", rows, 20)
    assert float((chance < 0.3).double().mean()) == pytest.approx(0.3, abs=0.01)
    other = [
        NOW.chance("what is said", rows, 20),
        Moment(4, 5).chance("what is read", rows, 20),
        Moment(3, 6).chance("what is read", rows, 20),
    ]
    for one in other:
        both = torch.stack([chance.flatten(), one.flatten()])
        assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02
