"""Every objective with every decoder and head: a gradient for all, and the same bits each time."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Final

import pytest
import torch
from test_models import DECODERS, HEADS, case

from transduce.data.batch import Batch, Example
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import Dropout, MaskPool, drawing_from
from transduce.sequences import Sequences
from transduce.text.codec import CodecBlueprint, TextCodec
from transduce.train.objective import (
    CrossEntropyBlueprint,
    Learner,
    LinearDecay,
    Loss,
    Moment,
    ObjectiveBlueprint,
    Task,
)

NOW: Final = Moment(4, 2)
HALF: Final = LinearDecay(updates=1, floor=0.5)
SETTINGS: Final[dict[str, dict[str, object]]] = {
    "cross_entropy": {},
    "scheduled_sampling": {"truth": HALF},
    "token_dropout": {"source": 0.3, "target": 0.3},
    "adversarial": {"size": 0.1},
    "r_drop": {},
    "distillation": {"teachers": ("somewhere",)},
    "minimum_risk": {"metric": "cer", "samples": 3, "sharpness": 0.5},
    "self_critical": {"metric": "cer", "samples": 2},
    "in_turn": {"updates": 2, "then": "cross_entropy"},
}
APART: Final = {"coverage", "guided_alignment"}  # about some decoders, and tested with their own
WORDS: Final = TextCodec.learn(CodecBlueprint.model_validate({"tokens": "characters"}), ["abcdef"])
MOST: Final = 5


def learning(decoder: str, head: str) -> tuple[Seq2Seq, Batch]:
    """Return a random model that drops, and a batch in which new words can be copied."""
    model, sources, _, _ = case("recurrent", decoder, 4, 9, 1, head)
    for part in model.modules():
        if isinstance(part, Dropout):
            part.rate = 0.2
    rows = [torch.randint(3, 9, (length,)).tolist() for length in (4, 2, 3, 0)]
    target = Sequences.stack([torch.tensor([1, *row, 2]) for row in rows])
    return model.train(), Batch(sources, target, torch.arange(4))


def task(batch: Batch, teacher: Seq2Seq, slots: int) -> Task:
    given = batch.sources["source"]
    new = ("x", "y")[:slots]

    def example(row: int) -> Example:
        ids = [id for id in given.data[row].tolist() if id >= WORDS.size]
        text = "".join(dict.fromkeys("xy"[id - WORDS.size] for id in ids))
        return Example({"source": text if text != "y" else "xy"}, ("abc",), "here:1")

    def most(lengths: torch.Tensor) -> torch.Tensor:
        return torch.full_like(lengths, MOST)

    assert len(new) == slots
    return Task(example, WORDS, slots, most, lambda _: (teacher,))


def outcome(
    blueprint: ObjectiveBlueprint, decoder: str, head: str, moment: Moment
) -> tuple[Loss, dict[str, torch.Tensor | None], Loss]:
    """Return the loss, its gradients, and the plain loss, as an update finds them."""
    model, batch = learning(decoder, head)
    teacher, _ = learning(decoder, head)
    objective = blueprint.build(task(batch, teacher.eval(), model.head.slots))
    found = []
    for learner in (Learner(model, CrossEntropyBlueprint().build()), Learner(model, objective)):
        model.zero_grad()
        torch.manual_seed(moment.step)
        pool = MaskPool(moment.seed, size=1 << 14)
        with drawing_from(pool):
            loss = learner(batch, moment)
            torch.autograd.backward(loss.total)
        found.append(loss)
    return found[1], {name: p.grad for name, p in model.named_parameters()}, found[0]


def test_all_objectives_are_here() -> None:
    assert ObjectiveBlueprint.choices().keys() == SETTINGS.keys() | APART


THOROUGHLY: Final = {"scheduled_sampling", "adversarial", "minimum_risk"}  # they use decoders most
CASES: Final = [
    (kind, decoder, head)
    for kind, decoder, head in itertools.product(SETTINGS, DECODERS, HEADS)
    if "-" not in decoder or (kind in THOROUGHLY and head == "linear")
]


@pytest.mark.parametrize(("kind", "decoder", "head"), CASES, ids=map(" ".join, CASES))
def test_every_parameter_learns_and_all_follows_from_the_moment(
    kind: str, decoder: str, head: str
) -> None:
    blueprint = ObjectiveBlueprint.choices()[kind].model_validate(SETTINGS[kind])
    assert isinstance(blueprint, ObjectiveBlueprint)
    loss, grads, plain = outcome(blueprint, decoder, head, NOW)
    assert loss.total.isfinite()
    assert not loss.nll.requires_grad
    assert 0.1 < float(loss.nll / plain.nll) < 10
    missing = [n for n, g in grads.items() if g is None or not g.isfinite().all()]
    assert not missing
    again, repeated, _ = outcome(blueprint, decoder, head, NOW)
    assert torch.equal(loss.total, again.total)
    for name, grad in grads.items():
        other = repeated[name]
        assert grad is not None
        assert other is not None
        assert torch.equal(grad, other)


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_example_of_weight_two_counts_as_two(kind: str) -> None:
    blueprint = ObjectiveBlueprint.choices()[kind].model_validate(SETTINGS[kind])
    assert isinstance(blueprint, ObjectiveBlueprint)
    assert blueprint.weighs
    model, batch = learning("recurrent", "linear")
    teacher, _ = learning("transformer", "linear")
    objective = blueprint.build(task(batch, teacher.eval(), model.head.slots))
    learner = Learner(model, objective).eval()  # twins are only equal where nothing is dropped
    heavy = replace(batch, weights=torch.tensor([[2.0], [1.0], [0.0], [1.0]]))
    both = [learner(given, NOW) for given in (heavy, batch.take(torch.tensor([0, 0, 1, 3])))]
    torch.testing.assert_close(both[0].total, both[1].total)
    plain = learner(batch, NOW)
    assert both[0].nll == plain.nll
    assert both[0].total != plain.total


@pytest.mark.parametrize("head", HEADS)
def test_a_label_counts_as_often_as_it_weighs(head: str) -> None:
    model, batch = learning("recurrent", head)
    learner = Learner(model, CrossEntropyBlueprint(smoothing=0.0).build()).eval()
    read, labels = model(batch.sources, batch.inputs, batch.labels), batch.labels
    memory, out = model.read(batch.sources, batch.inputs)
    said = model.head(out, model.head.start(memory)).gather(2, labels.data[..., None])[..., 0]
    torch.testing.assert_close(-said[labels.mask()].sum(), read[0])
    weights = torch.rand(labels.data.shape)
    found = learner(replace(batch, weights=weights), NOW)
    torch.testing.assert_close(found.total, -(said * weights)[labels.mask()].sum())
    torch.testing.assert_close(found.nll, read[1])


@pytest.mark.parametrize("kind", [kind for kind in SETTINGS if kind != "adversarial"])
def test_losses_of_labels_add_up(kind: str) -> None:
    """But for ``adversarial``, which moves what hurts most."""
    blueprint = ObjectiveBlueprint.choices()[kind].model_validate(SETTINGS[kind])
    assert isinstance(blueprint, ObjectiveBlueprint)
    model, batch = learning("recurrent", "linear")
    teacher, _ = learning("transformer", "linear")
    objective = blueprint.build(task(batch, teacher.eval(), model.head.slots))
    learner = Learner(model, objective).eval()
    one, other = torch.rand(2, *batch.labels.data.shape)
    totals = [learner(replace(batch, weights=w), NOW).total for w in (one, other, one + other)]
    torch.testing.assert_close(totals[0] + totals[1], totals[2])
    assert totals[0] != totals[1]


def test_weights_are_made_use_of_where_all_within_do() -> None:
    around = ObjectiveBlueprint.choices()["r_drop"]
    assert isinstance(around, type)
    for within, expected in (("cross_entropy", True), ("coverage", False)):
        made = around.model_validate({"objective": within})
        assert isinstance(made, ObjectiveBlueprint)
        assert made.weighs == expected


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("decoder", ["transformer", "convolutional"])
def test_language_models_learn_by_it_too(decoder: str, kind: str) -> None:
    """Without an encoder there is a target alone to change, to read and to say."""
    facts = {"kind": decoder, "width": 8, "dropout": 0.2}
    parts = ModelBlueprint.model_validate({"encoder": "none", "decoder": facts})
    model = build(parts, {"source": 9, "target": 9})
    rows = [torch.tensor([1, *row, 2]) for row in ([3, 4, 5, 6], [4], [])]
    empty = Sequences.stack([torch.tensor([2])] * 3)
    batch = Batch({"source": empty}, Sequences.stack(rows), torch.arange(3))
    blueprint = ObjectiveBlueprint.choices()[kind].model_validate(SETTINGS[kind])
    assert isinstance(blueprint, ObjectiveBlueprint)
    objective = blueprint.build(task(batch, copy.deepcopy(model).eval(), 0))
    loss = Learner(model, objective)(batch, NOW)
    torch.autograd.backward(loss.total)
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
