"""Distillation against plain loops; teachers teach and are left alone."""

from __future__ import annotations

from typing import Any

import learning
import pytest
import torch
import torch.nn.functional as F
from learning import NOW

from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.train.objective import (
    CrossEntropyBlueprint,
    DistillationBlueprint,
    Learner,
    Objective,
    RDropBlueprint,
)
from transduce.train.objective.passes import evaluating

PLAIN = CrossEntropyBlueprint(smoothing=0.2)


def distillation(name: str, *teachers: Seq2Seq, **facts: Any) -> Objective:
    blueprint = DistillationBlueprint(teachers=("somewhere",), objective=PLAIN, **facts)
    return blueprint.build(learning.task(learning.batch(name), others=teachers))


def other(name: str, seed: int) -> Seq2Seq:
    """Return a trained-looking model with the symbols of the others."""
    made = learning.model(name)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("name", learning.MODELS)
def test_a_model_has_nothing_to_learn_from_itself(name: str) -> None:
    model, batch = learning.model(name, dropout=0.3).eval(), learning.batch(name)
    twin = learning.model(name, dropout=0.3).eval()
    loss, grads = learning.learned(distillation(name, twin, twin, weight=0.4), model, batch)
    plain, expected = learning.learned(PLAIN.build(), model, batch)
    assert loss.nll == plain.nll
    torch.testing.assert_close(loss.total, 0.6 * plain.total)
    learning.assert_near(grads, {key: 0.6 * grad for key, grad in expected.items()})


@pytest.mark.parametrize("name", learning.MODELS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_divergence_is_that_of_a_plain_loop(name: str, temperature: float) -> None:
    model, batch = learning.model(name), learning.batch(name)
    teachers = [other(name, seed) for seed in (5, 6)]
    objective = distillation(name, *teachers, weight=0.7, temperature=temperature)
    loss, grads = learning.learned(objective, model, batch)

    def said(one: Seq2Seq) -> torch.Tensor:
        state = one.start(one.encode(batch.sources))
        return one.extend(batch.inputs.data, state)[0]

    model.zero_grad()
    known = said(model) > -torch.inf
    student = (said(model) / temperature).masked_fill(~known, -1e4).log_softmax(-1)
    mean = (sum((said(one).exp() for one in teachers), torch.zeros(())) / 2).log()
    wanted = (mean / temperature).masked_fill(~known, -1e4).softmax(-1)
    total = 0.3 * PLAIN.build()(model, batch).total
    for row, size in enumerate(batch.labels.lengths.tolist()):
        for place in range(size):
            apart = F.kl_div(student[row, place], wanted[row, place], reduction="sum")
            total = total + 0.7 * temperature**2 * apart
    torch.autograd.backward(total)
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(loss.total, total, rtol=1e-4, atol=1e-4)
    learning.assert_near(grads, expected, 1e-4)


def test_a_student_comes_to_say_what_its_teachers_say() -> None:
    model, batch = learning.model("recurrent"), learning.batch()
    teacher = other("transformer", 5)
    objective = distillation("", teacher, weight=1.0)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(80):
        losses.append(learning.learned(objective, model, batch)[0].total.item())
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]


def test_teachers_are_no_part_of_the_learner() -> None:
    model, batch = learning.model("transformer", dropout=0.3), learning.batch()
    teacher = other("recurrent", 5)
    before = [weight.clone() for weight in teacher.parameters()]
    learner = Learner(model, distillation("", teacher))
    assert len(list(learner.parameters())) == len(list(model.parameters()))
    assert learner.state_dict().keys() == {f"model.{key}" for key in model.state_dict()}
    learner.train()
    assert not any(part.training for part in teacher.modules())
    torch.autograd.backward(learner(batch, NOW).total)
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(map(torch.equal, before, teacher.parameters()))


def test_it_goes_within_r_drop_and_not_around_it() -> None:
    model, batch = learning.model("transformer", dropout=0.3), learning.batch()
    task = learning.task(batch, others=(other("recurrent", 5),))
    within = DistillationBlueprint(teachers=("somewhere",))
    assert RDropBlueprint(objective=within).build(task)(model, batch, NOW).total.isfinite()
    around = DistillationBlueprint(teachers=("somewhere",), objective=RDropBlueprint())
    with pytest.raises(Problem, match="distillation goes by one pass over each target"):
        around.build(task)(model, batch, NOW)


def test_evaluating_gives_every_part_its_mode_back() -> None:
    model = learning.model("transformer", dropout=0.3)
    model.decoder.eval()
    before = [part.training for part in model.modules()]
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == before
