"""Guided alignment: the formula, what it teaches, what it refuses, and runs that go on with it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import test_run
import tiny
import torch
from learning import NOW, Spy, assert_near, batch, learned, model, task
from test_processes import losses, train, weights

from transduce import blueprint
from transduce.data.batch import Batch
from transduce.experiment import Experiment
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.multihead import CrossAttention
from transduce.nn.recompute import recomputing
from transduce.nn.tap import watch
from transduce.problem import Problem
from transduce.recipe.replay import _packed, _unpacked
from transduce.sequences import Sequences
from transduce.train.objective import (
    CrossEntropyBlueprint,
    GuidedAlignmentBlueprint,
    Loss,
    ObjectiveBlueprint,
)
from transduce.train.objective.guided_alignment import divergence

LOOKING: Final = ("recurrent", "stepwise", "transformer", "convolutional", "copying")


def aligned(given: Batch) -> Batch:
    """Align with the mirrored source, the first symbol with two, the last row with nothing."""
    links = []
    for row in range(len(given)):
        size = int(given.labels.lengths[row]) - 1
        pairs = [(t, size - 1 - t) for t in range(size)] + ([(0, 0)] if size > 1 else [])
        chosen = torch.tensor(sorted(pairs)) if size > 1 else torch.zeros(0, 2, dtype=torch.long)
        links.append(chosen)
    return replace(given, alignment=Sequences.stack(links))


def guided(**settings: Any) -> GuidedAlignmentBlueprint:
    return GuidedAlignmentBlueprint.model_validate(settings)


def loss(at: Seq2Seq, given: Batch, objective: ObjectiveBlueprint) -> Loss:
    return learned(objective.build(task(given)), at, given)[0]


def test_the_formula_is_the_plain_loop() -> None:
    torch.manual_seed(4)
    attention = torch.rand(3, 4, 5).softmax(-1).requires_grad_()
    pairs = [[(0, 1), (0, 4), (2, 2)], [], [(1, 0), (1, 1), (1, 3), (3, 3)]]
    given = Sequences.stack([torch.tensor(row).view(-1, 2) for row in pairs])
    each = torch.rand(3, 4)
    for own in (None, each):
        expected = 0.0
        for row, links in enumerate(pairs):
            for t in range(4):
                wanted = [s for u, s in links if u == t]
                for s in wanted:
                    missed = -math.log(attention[row, t, s].item()) / len(wanted)
                    expected += missed * (1.0 if own is None else float(own[row, t]))
        found = divergence(attention, given, own)
        assert found.item() == pytest.approx(expected, rel=1e-6)
    torch.autograd.backward(found)
    assert attention.grad is not None
    assert not attention.grad[1].any()
    nothing = Sequences(torch.zeros(3, 0, 2, dtype=torch.long), torch.zeros(3, dtype=torch.long))
    assert divergence(attention, nothing, None) == 0


@pytest.mark.parametrize("name", LOOKING)
def test_it_is_added_to_the_loss_and_reaches_the_decoder(name: str) -> None:
    at, given = model(name), aligned(batch(name))
    plain = loss(at, given, CrossEntropyBlueprint())
    one, two = (loss(at, given, guided(weight=weight)) for weight in (0.5, 1.0))
    assert one.nll == two.nll == plain.nll
    torch.testing.assert_close(two.total - plain.total, 2 * (one.total - plain.total))
    assert two.total > plain.total
    _, before = learned(CrossEntropyBlueprint().build(), at, given)
    _, after = learned(guided(weight=1.0).build(task(given)), at, given)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[n], after[n]) for n in after if n.startswith("decoder"))
    assert not any(part._forward_hooks for part in at.modules())


@pytest.mark.parametrize("name", ["recurrent", "transformer"])
def test_parts_add_up_and_examples_count_by_their_weights(name: str) -> None:
    at, given = model(name), aligned(batch(name))
    objective = guided(weight=0.7).build(task(given))
    whole, gradient = learned(objective, at, given)
    parts = [learned(objective, at, given.take(torch.arange(4)[rank::2])) for rank in range(2)]
    torch.testing.assert_close(sum(part.total for part, _ in parts), whole.total)
    assert_near({n: parts[0][1][n] + parts[1][1][n] for n in gradient}, gradient)
    heavy = replace(given, weights=torch.tensor([[2.0], [1.0], [0.0], [1.0]]))
    twice, _ = learned(objective, at, given.take(torch.tensor([0, 0, 1, 3])))
    torch.testing.assert_close(learned(objective, at, heavy)[0].total, twice.total)


def test_the_layer_is_the_last_but_one_or_the_one_that_is_named() -> None:
    deep = tiny.TRANSFORMER | {"layers": 3, "dropout": 0.0}
    torch.manual_seed(1)
    parts = ModelBlueprint.model_validate({"encoder": deep, "decoder": deep})
    at, given = build(parts, {"source": 9, "target": 9}), aligned(batch())
    found = {layer: float(loss(at, given, guided(layer=layer)).total) for layer in (None, 1, 2, 3)}
    assert found[None] == found[2]
    assert len({found[1], found[2], found[3]}) == 3
    with pytest.raises(Problem, match=r"train.objective.layer: .* in 3 layers .* from 1 to 3"):
        loss(at, given, guided(layer=4))
    single = model("recurrent")
    assert loss(single, given, guided()).total == loss(single, given, guided(layer=1)).total
    with pytest.raises(Problem, match="in 1 layers"):
        loss(single, given, guided(layer=2))


@pytest.mark.parametrize(
    "inner", ["scheduled_sampling", "token_dropout", "adversarial", "guided_alignment"]
)
def test_it_stands_around_others_that_read_each_target_once(inner: str) -> None:
    at, given = model("transformer"), aligned(batch())
    found = loss(at, given, guided(objective=inner, weight=2.0))
    plain = loss(at, given, guided().objective)
    assert found.total > plain.total
    spy = Spy(guided().build(task(given)), [])
    around = ObjectiveBlueprint.choices()["r_drop"].model_validate(
        {"objective": "guided_alignment"}
    )
    assert isinstance(around, ObjectiveBlueprint)
    assert around.aligns
    assert around.weighs
    learned(around.build(task(given))._replace(objective=spy), model("recurrent", 0.2), given)  # type: ignore[attr-defined]
    assert len(spy.seen[0]) == 2 * len(given)


def test_what_it_cannot_teach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    given = aligned(batch())
    fixed = build(ModelBlueprint.model_validate(tiny.FIXED), {"source": 9, "target": 9})
    with pytest.raises(Problem, match="never looks at single symbols of the source"):
        loss(fixed, given, guided())
    with pytest.raises(Problem, match="there are no alignments to teach"):
        loss(model("recurrent"), batch(), guided())
    twice = guided(objective={"kind": "r_drop"})
    with pytest.raises(Problem, match="write that one around it"):
        loss(model("recurrent", 0.2), given, twice)
    longer = replace(given, sources={"source": Sequences.stack([torch.full((9,), 3)] * 4)})
    at = model("recurrent")
    memory = at.encode(longer.sources)
    monkeypatch.setattr(at, "encode", lambda _: memory)
    with pytest.raises(Problem, match="makes 9 states of 7 symbols"):
        loss(at, given, guided())


def test_what_is_computed_again_is_watched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that hides the weights would not be the one that was used when somebody listened."""
    at, given = model("transformer", 0.2), aligned(batch())
    objective, attend, seen = guided().build(task(given)), CrossAttention.attend, []

    def noting(self: CrossAttention, *rest: Any, ragged: None) -> torch.Tensor:
        assert ragged is None  # that is for GPUs
        seen.append((id(self), self.weights.watched))
        return attend(self, *rest)

    monkeypatch.setattr(CrossAttention, "attend", noting)
    plain, expected = learned(objective, at, given)
    once, seen[:] = list(seen), []
    with recomputing(True):
        again, found = learned(objective, at, given)
    assert plain.total == again.total
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert sorted(seen) == sorted(once * 2)
    assert [watched for _, watched in once] == [True, False]


def test_a_fault_keeps_alignments() -> None:
    both = [aligned(batch()), aligned(batch(lengths=(1, 1))), batch()]
    for given, kept in zip(both, _unpacked(_packed(both)), strict=True):
        assert kept.sources.keys() == given.sources.keys()
        if given.alignment is None:
            assert kept.alignment is None
        else:
            assert kept.alignment is not None
            assert torch.equal(kept.alignment.data, given.alignment.data)
            assert torch.equal(kept.alignment.lengths, given.alignment.lengths)


SIZE: Final = 6


def shuffled(rows: int) -> Batch:
    """Return copies of sources in random order, all in the same order of their own."""
    order = torch.stack([torch.randperm(SIZE) for _ in range(rows)])
    ends = torch.full((rows, 1), 2)
    source = torch.cat([order + 3, ends], 1)
    target = torch.cat([ends - 1, (torch.arange(SIZE) + 3).expand(rows, -1), ends], 1)
    pairs = torch.stack([torch.arange(SIZE).expand(rows, -1), order.argsort(1)], -1)
    return Batch(
        {"source": Sequences(source, torch.full((rows,), SIZE + 1))},
        Sequences(target, torch.full((rows,), SIZE + 2)),
        torch.arange(rows),
        None,
        Sequences(pairs, torch.full((rows,), SIZE)),
    )


def follows(at: Seq2Seq, objective: ObjectiveBlueprint, updates: int) -> float:
    """Train; return how often the taught attention is largest where the alignment is."""
    made, optimiser = objective.build(task(batch())), torch.optim.Adam(at.parameters(), 5e-3)
    for _ in range(updates):
        given = shuffled(32)
        optimiser.zero_grad()
        torch.autograd.backward(made(at, given, NOW).total / given.tokens)
        optimiser.step()
    given = shuffled(100)
    with torch.no_grad(), watch(at, "source attention") as seen:
        at.read(given.sources, given.inputs)
    taught = [maps for (maps,) in seen.values()][-2:][0]
    attention = taught.mean(1) if taught.dim() == 4 else taught
    assert given.alignment is not None
    right = attention[:, :SIZE].argmax(-1) == given.alignment.data[..., 1]
    return float(right.float().mean())


@pytest.mark.parametrize("name", ["recurrent", "transformer", "convolutional"])
def test_attention_learns_to_follow_the_alignment(name: str) -> None:
    torch.manual_seed(3)
    parts = {side: part | {"width": 24, "dropout": 0.0} for side, part in tiny.MODELS[name].items()}
    at = build(ModelBlueprint.model_validate(parts), {"source": 9, "target": 9}).train()
    torch.set_num_threads(1)
    assert follows(at, CrossEntropyBlueprint(), 60) < 0.5, "to say it nobody has to look"
    assert follows(at, guided(weight=1.0), 60) > 0.95


ROWS: Final = [f"{a} {b} {c}\t{c} {a}\t2-0 0-1\n" for a in "abcd" for b in "efgh" for c in "ijkl"]
SETTINGS: Final = """
data:
  train: {kind: tsv, path: train.tsv, alignment: 3}
  dev: {kind: tsv, path: dev.tsv}
text: {source: {tokens: words}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 16, dropout: 0.2}
  decoder: {kind: transformer, width: 16, layers: 2, heads: 2, inner: 16, dropout: 0.2}
train: {max_steps: 12, batch: {tokens: 64}, threads: 1, precision: fp32, log_every: 1,
  objective: {kind: guided_alignment, weight: 0.3, objective: {kind: token_dropout}}}
validation: {every: 6, examples: 4, keep: 2, average: false, patience: 0}
metrics: [exact]
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.tsv").write_text("".join(ROWS[:50]), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("".join(ROWS[50:]), encoding="utf-8")
    (tmp_path / "exp.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def test_a_run_goes_on_bit_for_bit(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_run, "SETTINGS", SETTINGS)
    schedule = "train.optimiser.schedule.kind=inverse_sqrt"
    whole = test_run.run(data, "whole", schedule)
    test_run.run(data, "parts", schedule, "train.max_steps=6")
    parts = test_run.run(data, "parts", schedule)
    assert weights(whole) == weights(parts)
    other = test_run.run(data, "other", schedule, "train.objective.weight=3.0")
    assert weights(other) != weights(whole)


def test_two_processes_learn_what_one_does(data: Path) -> None:
    still = ("model.encoder.dropout=0", "model.decoder.dropout=0")
    for size, run in ((1, "one"), (2, "two")):
        train(data, run, size, *still)
    assert losses(data / "two") == pytest.approx(losses(data / "one"), abs=1e-5)


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    experiment = blueprint.parse(SETTINGS, Experiment, "exp.yaml", ["train.objective.layer=1"])
    path = tmp_path / "experiment.yaml"
    path.write_text(blueprint.dump(experiment), encoding="utf-8")
    assert blueprint.read(path, Experiment) == experiment
    assert experiment.train.objective.kind == "guided_alignment"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("train.objective=cross_entropy", "cross_entropy makes no use of alignments; take guided"),
        ("data.train={kind: tsv, path: train.tsv}", "guided_alignment has no alignments to teach"),
        ("data.dev={kind: tsv, path: dev.tsv, alignment: 3}", "teach in training alone"),
        ("train.objective={kind: guided_alignment, weight: 0}", "expected a number > 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(change: str, what: str) -> None:
    with pytest.raises(Problem, match=what):
        blueprint.parse(SETTINGS, Experiment, "exp.yaml", [change])
