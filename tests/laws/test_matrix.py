"""The laws over combinations of many choices at once, drawn at random.

``test_models`` turns one choice at a time; here all are turned together, so that what only fails
together is met.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from test_causality import check_gradients
from test_models import CHOICES, TINY, confident, fits, label

from transduce import testing
from transduce.blueprint import Part, dump, read
from transduce.models.build import ModelBlueprint, build
from transduce.models.interface import DecoderBlueprint, EncoderBlueprint, HeadBlueprint
from transduce.problem import Problem
from transduce.train.checkpoint import load_tensors, tensors

COMBINATIONS = 300
SIZES = {"source": 9, "target": 9}
SLOTS: dict[str, type[Part]] = {
    "encoder": EncoderBlueprint,
    "decoder": DecoderBlueprint,
    "head": HeadBlueprint,
}


def drawn(side: str, rng: random.Random) -> Part:
    """Return a part of any kind, with half of what can be chosen about it chosen at random."""
    part = rng.choice(list(SLOTS[side].choices().values()))
    facts = {name: size for name, size in TINY.items() if name in part.model_fields}
    for name, field in part.model_fields.items():
        choices = [value for value in CHOICES.get(name, ()) if fits(value, field.annotation)]
        if choices and rng.random() < 0.5:
            facts[name] = rng.choice(choices)
    return part.model_validate(facts)


def combination(number: int) -> ModelBlueprint:
    """Return the combination of this number; one that makes no sense says why, and is redrawn."""
    rng = random.Random(number)
    while True:
        parts = {side: drawn(side, rng) for side in SLOTS}
        blueprint = ModelBlueprint.model_validate({**parts, "tie": "none"})
        if makes_sense(blueprint):
            return blueprint


def makes_sense(blueprint: ModelBlueprint) -> bool:
    """Whether the parts go together; if not, a sentence says why and what to do."""
    try:
        build(blueprint, SIZES)
    except Problem as problem:
        what, _, to_do = str(problem).partition("; ")
        if not (what and to_do):
            raise
        return False
    return True


MATRIX = [combination(number) for number in range(COMBINATIONS)]
NAMES = [f"{label(made.encoder)} {label(made.decoder)} {label(made.head)}" for made in MATRIX]


@pytest.mark.parametrize("blueprint", MATRIX, ids=NAMES)
def test_combination(blueprint: ModelBlueprint, tmp_path: Path) -> None:
    given = confident(blueprint, 5, 9, 4)
    given.model.double()  # some of these are chaos: each rounding would grow to a difference
    model, sources, prompt, _ = given
    tokens = torch.cat([prompt, torch.randint(0, 9 + model.head.slots, (5, 4))], 1)
    testing.check_scorer(model, sources, tokens)
    testing.check_normalised(model, sources, tokens)
    testing.check_beam_one_is_greedy(*given)
    check_gradients(given, blueprint.decoder)

    (tmp_path / "model.yaml").write_text(dump(blueprint), encoding="utf-8")
    again = build(read(tmp_path / "model.yaml", ModelBlueprint), SIZES).eval().double()
    load_tensors(again, tensors(model), tmp_path)
    with torch.no_grad():
        first, second = (
            one.extend(tokens, one.start(one.encode(sources)))[0] for one in (model, again)
        )
    assert first.equal(second)


def test_combinations_differ() -> None:
    assert len(set(NAMES)) >= 200
