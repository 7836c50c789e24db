from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from transduce.models.build import ModelBlueprint, build
from transduce.models.pieces import depths
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.train.optimise import (
    Cosine,
    InverseSquareRoot,
    OptimiserBlueprint,
    Plateau,
    ScheduleBlueprint,
)

TRANSFORMER = {"kind": "transformer", "width": 8, "layers": 2, "heads": 2, "inner": 12}
LSTM = {"kind": "recurrent", "width": 8, "embedding": 8}


def model(tie: str) -> Seq2Seq:
    facts = {"encoder": LSTM, "decoder": TRANSFORMER, "tie": tie}
    return build(ModelBlueprint.model_validate(facts), {"source": 9, "target": 9})


@pytest.mark.parametrize("tie", ["none", "output", "all"])
def test_only_matrices_decay(tie: str) -> None:
    """Neither biases, norms nor embeddings, and no output layer that is an embedding too."""
    made = model(tie)
    optimiser = OptimiserBlueprint(rate=0.1, weight_decay=0.5).build(made)
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    decayed = set()
    for name, value in made.named_parameters():
        if torch.equal(value, before[name]) and before[name].any():
            continue
        torch.testing.assert_close(value.detach(), before[name] * (1 - 0.1 * 0.5))
        if before[name].any():
            decayed.add(name)
    matrices = {
        name
        for name, value in made.named_parameters()
        if value.dim() == 2 and not name.endswith("embedding.weight")
    }
    assert decayed == matrices
    assert ("head.weight" in decayed) == (tie == "none")
    assert "encoders.source.reader.forwards.0.weight_hh_l0" in decayed


def test_every_parameter_is_in_one_group() -> None:
    made = model("output")
    groups = OptimiserBlueprint().build(made).param_groups
    members = [id(value) for group in groups for value in group["params"]]
    assert sorted(members) == sorted(id(value) for value in made.parameters())


def test_a_model_without_matrices_or_without_vectors_is_fine() -> None:
    OptimiserBlueprint().build(nn.LayerNorm(3))
    OptimiserBlueprint().build(nn.Linear(3, 3, bias=False))


@pytest.mark.parametrize("schedule", [InverseSquareRoot, Cosine, Plateau])
def test_every_schedule_rises_to_one_and_never_above(schedule: type[ScheduleBlueprint]) -> None:
    made = schedule.model_validate({"warmup": 5})
    factors = [made.factor(step, 50, []) for step in range(1, 51)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(factors) == 1.0
    assert factors[4:] == sorted(factors[4:], reverse=True)


@pytest.mark.parametrize("schedule", [InverseSquareRoot, Cosine, Plateau])
def test_no_warmup_is_possible(schedule: type[ScheduleBlueprint]) -> None:
    made = schedule.model_validate({"warmup": 0})
    assert 0.9 < made.factor(1, 50, []) <= 1.0


def test_a_cosine_ends_at_its_floor_and_stays_there() -> None:
    made = Cosine(warmup=5, floor=0.1)
    assert made.factor(50, 50, []) == pytest.approx(0.1)
    assert made.factor(60, 50, []) == pytest.approx(0.1)
    assert Cosine(warmup=5).factor(3, 2, []) == pytest.approx(0.6)


def test_a_plateau_is_cut_after_patience_and_again() -> None:
    made = Plateau(warmup=0, cut=0.5, patience=2)
    scores = [1.0, 2.0, 2.0, 1.5, 3.0, 2.9, 2.8, 2.7, 2.6]
    factors = [made.factor(1, 1, scores[:count]) for count in range(len(scores) + 1)]
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_score_that_is_no_number_is_no_improvement() -> None:
    made = Plateau(warmup=0, cut=0.5, patience=2)
    assert made.factor(1, 1, [1.0, float("nan"), float("nan")]) == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"betas": [1.0, 0.9]},
        {"betas": [0.9, -0.1]},
        {"betas": [0.9]},
        {"epsilon": 0},
        {"weight_decay": -1},
        {"clip": 0},
        {"momentum": 0.9},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OptimiserBlueprint.model_validate(wrong)


def test_the_default_is_two_groups_at_one_rate() -> None:
    groups = OptimiserBlueprint(weight_decay=0.1).build(model("output")).param_groups
    assert [(g["weight_decay"], g["scale"], g["begin"]) for g in groups] == [
        (0.1, 1.0, 0),
        (0.0, 1.0, 0),
    ]


def test_layers_are_counted_from_the_scores_down() -> None:
    facts = {"encoder": LSTM | {"layers": 2}, "decoder": TRANSFORMER, "tie": "none"}
    made = build(ModelBlueprint.model_validate(facts), {"source": 9, "target": 9})
    found = depths(made)
    assert found["head.weight"] == found["decoder.norm.norm.weight"] == 0
    assert found["decoder.layers.1.feed_forward.0.weight"] == 0
    assert found["decoder.layers.0.feed_forward.0.weight"] == 1
    assert found["decoder.embedding.weight"] == 2
    assert found["encoders.source.reader.backwards.1.weight_hh_l0"] == 3
    assert found["encoders.source.reader.forwards.0.weight_hh_l0"] == 4
    assert found["encoders.source.embedding.weight"] == 5
    assert found.keys() == dict(made.named_parameters()).keys()


def test_self_attention_lies_above_the_recurrence_that_it_reads() -> None:
    facts = {"encoder": TRANSFORMER | {"kind": "hybrid"}, "decoder": LSTM}
    made = build(ModelBlueprint.model_validate(facts), {"source": 9, "target": 9})
    found = depths(made)
    above, below = (
        {deep for name, deep in found.items() if name.startswith(f"encoders.source.{part}.")}
        for part in ("layers", "reader")
    )
    assert max(above) < min(below)


def test_rates_fall_from_layer_to_layer_and_decay_stays_with_matrices() -> None:
    made = model("none")
    found, names = depths(made), {id(p): name for name, p in made.named_parameters()}
    for group in OptimiserBlueprint(layer_decay=0.5, weight_decay=0.1).build(made).param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["scale"] == 0.5 ** found[name], name
            matrix = parameter.dim() > 1 and not name.endswith("embedding.weight")
            assert group["weight_decay"] == (0.1 if matrix else 0.0), name


def test_layers_begin_to_learn_one_after_another_whenever_one_looks() -> None:
    made = model("output")
    setting, found = OptimiserBlueprint(unfreeze_every=10), depths(made)
    optimiser = setting.build(made)
    for step in (0, 9, 10, 35, 20, 1000):
        setting.thaw(optimiser, step)
        for name, parameter in made.named_parameters():
            assert parameter.requires_grad == (step >= 10 * found[name]), (name, step)


def test_what_is_frozen_is_not_in_the_optimiser() -> None:
    made = model("output")
    optimiser = OptimiserBlueprint(frozen=("encoder", "target_table")).build(made)
    held = {id(value) for group in optimiser.param_groups for value in group["params"]}
    for name, value in made.named_parameters():
        still = name.startswith("encoders.") or name == "decoder.embedding.weight"
        assert (id(value) in held) == value.requires_grad == (not still), name
    with pytest.raises(Problem, match="nothing is left that learns"):
        OptimiserBlueprint(frozen=("encoder", "decoder", "head")).build(model("none"))
