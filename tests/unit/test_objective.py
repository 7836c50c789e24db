from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from transduce.data.batch import Batch
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.sequences import Sequences
from transduce.train.objective import CoverageBlueprint, CrossEntropyBlueprint, Learner
from transduce.train.objective.coverage import repeated

SYMBOLS = 9


def model(decoder: dict[str, Any]) -> Seq2Seq:
    torch.manual_seed(1)
    parts = {"encoder": tiny.RECURRENT, "decoder": decoder}
    made = build(ModelBlueprint.model_validate(parts), {"source": SYMBOLS, "target": SYMBOLS})
    return made.eval()


def batch() -> Batch:
    torch.manual_seed(2)
    rows = [torch.randint(3, SYMBOLS, (length,)) for length in (6, 5, 3, 1)]
    source = Sequences.stack([torch.cat([row, torch.tensor([2])]) for row in rows])
    target = Sequences.stack(
        [torch.cat([torch.tensor([1]), row, torch.tensor([2])]) for row in rows]
    )
    return Batch({"source": source}, target, torch.arange(4))


def attention_repeated(model: Seq2Seq) -> float:
    given = batch()
    with torch.no_grad():
        out = model.read(given.sources, given.inputs)[1]
    assert out.attention is not None
    return float(repeated(out.attention, given.labels.mask()))


ATTENDING = [
    tiny.RECURRENT,
    tiny.RECURRENT | {"connection": "coverage"},
    tiny.RECURRENT | {"connection": "multihead", "order": "before", "input_feeding": True},
]


@pytest.mark.parametrize("decoder", ATTENDING, ids=str)
def test_the_coverage_loss_is_added_with_its_weight(decoder: dict[str, Any]) -> None:
    made = model(decoder)
    plain = CrossEntropyBlueprint(smoothing=0.2).build()(made, batch())
    both = CoverageBlueprint(smoothing=0.2, weight=0.5).build()(made, batch())
    assert both.nll == plain.nll
    assert float((both.total - plain.total).detach()) == pytest.approx(
        0.5 * attention_repeated(made), rel=1e-5
    )


def test_coverage_falls_when_it_is_priced() -> None:
    left = []
    for objective in (CrossEntropyBlueprint(), CoverageBlueprint(weight=2.0)):
        made = model(tiny.RECURRENT)
        learner = Learner(made, objective.build())
        optimiser = torch.optim.Adam(made.parameters(), 0.02)
        for _ in range(100):
            optimiser.zero_grad()
            learner(batch()).total.backward()
            optimiser.step()
        left.append(attention_repeated(made))
    assert left[1] < left[0] * 0.6
    assert left[1] < attention_repeated(model(tiny.RECURRENT)) * 0.6


@pytest.mark.parametrize(
    "decoder",
    [
        tiny.TRANSFORMER,
        tiny.CONVOLUTIONAL,
        tiny.RECURRENT | {"connection": "fixed"},
        tiny.RECURRENT | {"connection": "initial"},
    ],
    ids=str,
)
def test_a_decoder_without_one_attention_is_refused_with_the_reason(
    decoder: dict[str, Any],
) -> None:
    with pytest.raises(Problem) as caught:
        CoverageBlueprint().build()(model(decoder), batch())
    assert str(caught.value).startswith(
        "train.objective: the coverage loss is about where the decoder looks, and this decoder has "
        "no one attention to show; take"
    )
