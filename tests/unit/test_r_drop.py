"""R-Drop against plain loops, and what it is for."""

from __future__ import annotations

from typing import Any

import learning
import pytest
import torch
import torch.nn.functional as F
from learning import NOW

from transduce import tree
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.train.objective import (
    CoverageBlueprint,
    CrossEntropyBlueprint,
    MinimumRiskBlueprint,
    Objective,
    RDropBlueprint,
)
from transduce.train.objective.passes import overhearing

PLAIN = CrossEntropyBlueprint(smoothing=0.2)


def r_drop(name: str = "", **facts: Any) -> Objective:
    return RDropBlueprint(objective=PLAIN, **facts).build(learning.task(learning.batch(name)))


@pytest.mark.parametrize("name", learning.MODELS)
def test_where_nothing_is_dropped_nothing_differs(name: str) -> None:
    model, batch = learning.model(name, dropout=0.3).eval(), learning.batch(name)
    loss, grads = learning.learned(r_drop(name), model, batch)
    plain, expected = learning.learned(PLAIN.build(), model, batch)
    torch.testing.assert_close(loss.total, plain.total)
    torch.testing.assert_close(loss.nll, plain.nll)
    learning.assert_near(grads, expected, 1e-4)


def twins(model: Seq2Seq, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the two passes said of all symbols, by the masks that ``learned`` draws."""
    batch = tree.widen(learning.batch(name), 2)
    with overhearing(model) as heard:
        learning.learned(PLAIN.build(), model, batch)
    said = model.head(heard[0].out, model.head.start(heard[0].memory)).detach()
    return said[::2], said[1::2]


@pytest.mark.parametrize("name", learning.MODELS)
def test_the_divergence_is_that_of_a_plain_loop(name: str) -> None:
    model, batch = learning.model(name, dropout=0.3), learning.batch(name)
    model.decoder.embedding.weight.data *= 3
    loss, grads = learning.learned(r_drop(name, weight=4.0), model, batch)
    whole, _ = learning.learned(PLAIN.build(), model, tree.widen(batch, 2))
    first, second = twins(model, name)
    expected = 0.0
    for row, size in enumerate(batch.labels.lengths.tolist()):
        for place in range(size):
            p, q = first[row, place], second[row, place]
            known = p > -torch.inf
            p, q = p[known], q[known]
            there, back = (
                F.kl_div(*pair, reduction="sum", log_target=True) for pair in ((q, p), (p, q))
            )
            expected += float(there + back) / 2
    assert expected > 0.01
    assert loss.total.item() == pytest.approx((whole.total.item() + 4.0 * expected) / 2, rel=1e-4)
    assert loss.nll.item() == pytest.approx(whole.nll.item() / 2)
    assert all(grad.isfinite().all() for grad in grads.values())


def test_answers_come_nearer_to_each_other_when_it_is_priced() -> None:
    apart = []
    for objective in (PLAIN.build(), r_drop(weight=5.0)):
        model, batch = learning.model("transformer", dropout=0.3), learning.batch()
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        for step in range(40):
            learning.learned(objective, model, batch, NOW._replace(step=step))
            optimiser.step()
        first, second = twins(model, "")
        apart.append(float(((first.exp() - second.exp()) * (first - second)).sum()))
    assert apart[1] < 0.5 * apart[0]


def test_a_model_that_drops_nothing_is_refused() -> None:
    with pytest.raises(Problem, match=r"train\.objective: r_drop .* drops nothing; set dropout"):
        r_drop()(learning.model("transformer"), learning.batch(), NOW)


def test_it_goes_around_other_objectives_that_read_whole_targets_alone() -> None:
    batch = learning.batch()
    within = CoverageBlueprint()
    around = RDropBlueprint(objective=within).build(learning.task(batch))
    model = learning.model("recurrent", dropout=0.3)
    assert around(model, batch, NOW).total > within.build()(model, batch).total
    risk = MinimumRiskBlueprint(samples=2)
    with pytest.raises(
        Problem, match="r_drop goes by one pass over each target, and the objective"
    ):
        RDropBlueprint(objective=risk).build(learning.task(batch))(model, batch, NOW)
