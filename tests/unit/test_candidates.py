"""Minimum risk and self-critical training against enumeration of all there is to say."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Final

import learning
import pytest
import torch
from learning import NOW
from torch import Tensor

from transduce import tree
from transduce.data.batch import Batch
from transduce.evaluate import BleuBlueprint, CharacterErrorRateBlueprint, MetricBlueprint
from transduce.models.seq2seq import Seq2Seq
from transduce.search import Greedy, Sample, force
from transduce.sequences import Sequences
from transduce.text.codec import CodecBlueprint, TextCodec
from transduce.train.objective import (
    CrossEntropyBlueprint,
    MinimumRiskBlueprint,
    Moment,
    SelfCriticalBlueprint,
    Task,
)
from transduce.train.objective.candidates import Judge, found, sampled, score, truths

CER: Final = CharacterErrorRateBlueprint()
FEW: Final = TextCodec.learn(CodecBlueprint.model_validate({"tokens": "characters"}), ["ab"])
ALL: Final = [[2], *([a, b] for a in (0, 1, 3, 4) for b in range(5))]


def few() -> tuple[Seq2Seq, Batch, Task]:
    """Return a model of five symbols that answers with two of them at most."""
    source = Sequences.stack([torch.tensor([3, 4, 2]), torch.tensor([4, 2])])
    target = Sequences.stack([torch.tensor([1, 4, 2]), torch.tensor([1, 2])])
    batch = Batch({"source": source}, target, torch.tensor([10, 11]))
    task = replace_texts(learning.task(batch, most=2), ("b", "ab"))
    return learning.model("recurrent", symbols=5), batch, task


def replace_texts(task: Task, texts: tuple[str, ...]) -> Task:
    def example(row: int) -> Any:
        return replace(task.example(row), references=(texts[row - 10],))

    return task._replace(target=FEW, example=example)


def probabilities(model: Seq2Seq, batch: Batch) -> Tensor:
    """Return log P of all that can be said, by forcing it."""
    rows = Sequences.stack([torch.tensor(ids) for ids in ALL])
    tokens = rows.data.expand(len(batch), -1, -1)
    lengths = rows.lengths.expand(len(batch), -1)
    prompt = torch.ones(len(batch), 1, dtype=torch.long)
    return force(model, model.encode(batch.sources), prompt, tokens, lengths).sum(2)


def risks(batch: Batch, task: Task, metric: MetricBlueprint) -> Tensor:
    return torch.tensor(Judge(metric.build(), task)(batch, [ALL] * len(batch)))


@pytest.mark.parametrize("sharpness", [0.005, 1.0])
def test_minimum_risk_is_that_of_enumeration(sharpness: float) -> None:
    model, batch, task = few()
    assert FEW.size == 5
    torch.testing.assert_close(probabilities(model, batch).exp().sum(1), torch.ones(2))
    blueprint = MinimumRiskBlueprint(metric=CER, samples=1500, sharpness=sharpness, weight=3.0)
    drawn = found(sampled(1500, 1.0, NOW), model, batch, task)
    assert all({tuple(ids) for ids in own} == set(map(tuple, ALL)) for own in drawn)
    loss, grads = learning.learned(blueprint.build(task), model, batch)
    model.zero_grad()
    likely = (sharpness * probabilities(model, batch)).softmax(1)
    expected = (likely * risks(batch, task, CER)).sum(1)
    total = 3.0 * (batch.labels.lengths * expected).sum()
    torch.autograd.backward(total)
    torch.testing.assert_close(loss.total, total)
    torch.testing.assert_close(loss.nll, CrossEntropyBlueprint().build()(model, batch).nll)
    slopes = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    learning.assert_near(grads, slopes)


def test_self_critical_training_has_the_slope_of_the_expected_risk() -> None:
    model, batch, task = few()
    objective = SelfCriticalBlueprint(metric=CER, samples=1000, weight=2.0).build(task)
    _, grads = learning.learned(objective, model, batch)
    model.zero_grad()
    expected = (probabilities(model, batch).exp() * risks(batch, task, CER)).sum(1)
    torch.autograd.backward(2.0 * (batch.labels.lengths * expected).sum())
    pairs = [
        (grads[n].flatten(), p.grad.flatten())
        for n, p in model.named_parameters()
        if p.grad is not None
    ]
    ours, exact = (torch.cat(side) for side in zip(*pairs, strict=True))
    assert float((ours - exact).norm()) < 0.25 * float(exact.norm())


def test_self_critical_training_is_the_formula_over_what_was_drawn() -> None:
    model, batch, task = few()
    loss = SelfCriticalBlueprint(metric=CER, samples=3).build(task)(model, batch, NOW)
    best = found(Greedy(), model, batch, task)
    drawn = found(sampled(3, 1.0, NOW), model, batch, task)
    table, log_probs, expected = risks(batch, task, CER), probabilities(model, batch), 0.0
    for row, size in enumerate(batch.labels.lengths.tolist()):
        base = table[row, ALL.index(best[row][0])]
        for ids in drawn[row]:
            place = ALL.index(ids)
            expected += size / 3 * ((table[row, place] - base) * log_probs[row, place]).item()
    assert loss.total.item() == pytest.approx(expected, abs=1e-5)
    assert expected != 0


@pytest.mark.parametrize("name", learning.MODELS)
def test_candidates_are_scored_as_if_forced_one_by_one(name: str) -> None:
    model, batch = learning.model(name), learning.batch(name)
    task = learning.task(batch)
    drawn = found(sampled(4, 1.0, NOW), model, batch, task)
    answers = [[truth, *own] for truth, own in zip(truths(batch), drawn, strict=True)]
    answers[1] = answers[1][:2]
    scored = score(model, batch, answers)
    assert scored.real.tolist() == [[True] * 5, [True] * 2 + [False] * 3, [True] * 5, [True] * 5]
    for row, one in enumerate(answers):
        alone = tree.keep(batch, torch.tensor([row]), 1)
        memory = model.encode(alone.sources)
        for place, ids in enumerate(one):
            tokens = torch.tensor(ids)[None, None]
            lengths = torch.tensor([[len(ids)]])
            forced = force(model, memory, torch.ones(1, 1, dtype=torch.long), tokens, lengths)
            assert scored.log_probs[row, place].item() == pytest.approx(
                forced.sum().item(), abs=1e-4
            )


def test_what_is_drawn_follows_from_moment_and_row_alone() -> None:
    model, batch = learning.model("transformer", dropout=0.4), learning.batch()
    task = learning.task(batch)

    def drawn(moment: Moment, batch: Batch = batch) -> list[list[list[int]]]:
        torch.manual_seed(len(batch))
        return found(sampled(4, 1.0, moment), model, batch, task)

    whole = drawn(NOW)
    assert whole == drawn(NOW)
    assert whole != drawn(NOW._replace(step=4))
    assert whole != drawn(NOW._replace(seed=6))
    for row in range(len(batch)):
        assert drawn(NOW, tree.keep(batch, torch.tensor([row]), 1)) == [whole[row]]
    assert model.training


def test_risks_are_those_of_the_metric_on_texts_with_words_that_are_new() -> None:
    batch = learning.batch("copying")
    task = learning.task(batch)
    answers = [[truth, truth[1:], [3, 4, 9, 10, 2]] for truth in truths(batch)]
    answers[2:] = [one[:2] for one in answers[2:]]  # fewer words are new in their sources
    (cer, bleu) = (Judge(m.build(), task)(batch, answers) for m in (CER, BleuBlueprint()))
    for row, one in enumerate(answers):
        example = task.example(int(batch.index[row]))
        codec = replace(task.target, new=("x", "y"))
        assert cer[row][0] == 0
        for ids, error, lack in zip(one, cer[row], bleu[row], strict=True):
            text = codec.decode(ids)
            (statistics,) = CER.build().statistics([text], [example.references])
            assert error == CER.build().score(statistics) / 100
            (statistics,) = BleuBlueprint().build().statistics([text], [example.references])
            better = BleuBlueprint().build().segment_score(statistics)
            assert lack == pytest.approx(1 - better / 100)


@pytest.mark.parametrize("kind", [MinimumRiskBlueprint, SelfCriticalBlueprint])
def test_answers_get_better(kind: type[MinimumRiskBlueprint] | type[SelfCriticalBlueprint]) -> None:
    model, batch, task = few()
    facts = {"sharpness": 0.5} if kind is MinimumRiskBlueprint else {}
    objective = kind(metric=CER, samples=10, **facts).build(task)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    seen = []
    for step in range(60):
        with torch.no_grad():
            likely = probabilities(model, batch).exp()
        seen.append(float((likely * risks(batch, task, CER)).sum()))
        learning.learned(objective, model, batch, Moment(step, 1))
        optimiser.step()
    assert seen[-1] < 0.6 * seen[0]


@pytest.mark.parametrize("kind", [MinimumRiskBlueprint, SelfCriticalBlueprint])
def test_another_objective_may_stand_beside(
    kind: type[MinimumRiskBlueprint] | type[SelfCriticalBlueprint],
) -> None:
    model, batch, task = few()
    plain = CrossEntropyBlueprint(smoothing=0.2)
    alone = kind(metric=CER, samples=5).build(task)(model, batch, NOW)
    both = kind(metric=CER, samples=5, objective=plain).build(task)(model, batch, NOW)
    beside = plain.build()(model, batch)
    torch.testing.assert_close(both.total, alone.total + beside.total)
    torch.testing.assert_close(both.nll, alone.nll)


def test_samples_without_an_end_are_candidates_too() -> None:
    model, batch, task = few()
    drawn = found(Sample(samples=200), model, batch, task)
    assert any(ids[-1] != 2 and len(ids) == 2 for ids in itertools.chain(*drawn))
