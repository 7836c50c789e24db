"""Models learn: they copy, reverse and sort strings of digits that they were never shown."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import pytest
import torch

from transduce.data.batch import Batch
from transduce.data.stream import Position
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.search import Greedy
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS, SPECIALS
from transduce.train.loop import Plan, Stream, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision

Digits = list[int]

SEED, ROWS, UPDATES, RATE = 1, 64, 600, 6e-3
BAR = 0.99  # each of several seeds reaches it
DIGITS: Final = range(len(SPECIALS), len(SPECIALS) + 10)
TASKS: Final[dict[str, Callable[[Digits], Digits]]] = {
    "copy": list,
    "reverse": lambda digits: digits[::-1],
    "sort": sorted,
}
MONOTONIC: Final[dict[str, Callable[[Digits], Digits]]] = {
    "double the even": lambda digits: [d for digit in digits for d in [digit] * (2 - digit % 2)],
}
ANSWERS: Final = TASKS | MONOTONIC
RECURRENT: Final = {"kind": "recurrent", "embedding": 32, "width": 64, "dropout": 0.0}
TRANSFORMER: Final = {
    "kind": "transformer",
    "width": 64,
    "layers": 1,
    "heads": 4,
    "inner": 128,
    "dropout": 0.0,
}
CONVOLUTIONAL: Final = {"kind": "convolutional", "width": 64, "layers": 2, "dropout": 0.0}
NEWER: Final = TRANSFORMER | {
    "positions": "rotary",
    "normalisation": "rms",
    "activation": "swiglu",
    "key_value_heads": 2,
    "similarity": "cosine",
}
FIXED: Final = RECURRENT | {"connection": "fixed", "width": 128}
FAMILIES: Final = {  # plain units need the score that sees state and source together
    **{
        cell: (RECURRENT | {"cell": cell}, RECURRENT | {"cell": cell, "connection": "additive"})
        for cell in ("tanh", "relu")
    },
    **{cell: (RECURRENT | {"cell": cell}, RECURRENT | {"cell": cell}) for cell in ("gru", "lstm")},
    "convolutional": (CONVOLUTIONAL, CONVOLUTIONAL),
    "transformer": (TRANSFORMER, TRANSFORMER),
}


def strings(seed: int, longest: int, held_out: bool) -> Iterator[Digits]:
    """Draw strings without end; a tenth of all that are possible is held out."""
    draw = random.Random(seed)
    while True:
        digits = [draw.choice(DIGITS) for _ in range(draw.randint(1, longest))]
        if (zlib.crc32(bytes(digits)) % 10 == 0) == held_out:
            yield digits


def batches(task: str, longest: int) -> Stream:
    """Pair strings with their answers."""
    drawn, number = strings(SEED, longest, held_out=False), 0
    while True:
        rows = list(islice(drawn, ROWS))
        answers = [ANSWERS[task](row) for row in rows]
        target = Sequences.stack([torch.tensor([BOS, *answer, EOS]) for answer in answers])
        number += 1
        yield Position(0, number), Batch({"source": sources(rows)}, target, torch.arange(ROWS))


def sources(rows: list[Digits]) -> Sequences:
    return Sequences.stack([torch.tensor([*row, EOS]) for row in rows])


def learn(
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    task: str,
    longest: int,
    rate: float = RATE,
) -> Seq2Seq:
    """Train a tiny model."""
    torch.manual_seed(SEED)
    blueprint = ModelBlueprint.model_validate({"encoder": encoder, "decoder": decoder})
    model = build(blueprint, {"source": DIGITS.stop, "target": DIGITS.stop})
    optimiser = OptimiserBlueprint.model_validate(
        {"rate": rate, "schedule": {"kind": "cosine", "warmup": 50}}
    )
    learner = Learner(model, CrossEntropyBlueprint(smoothing=0.0).build())
    state = TrainState(learner, optimiser.build(model), Position(0, 0))
    fp32 = Precision(torch.float32, "the same on every machine")
    plan = Plan(optimiser, UPDATES, 1, SEED, torch.device("cpu"), fp32)
    for _ in steps(state, batches(task, longest), plan):
        pass
    return model.eval()


def accuracy(model: Seq2Seq, task: str, longest: int) -> float:
    """Return the share of held-out strings that are answered without any mistake."""
    drawn = {tuple(row) for row in islice(strings(SEED, longest, held_out=True), 1000)}
    rows = [list(row) for row in sorted(drawn)]
    asked = sources(rows)
    with torch.no_grad():
        memory = model.encode({"source": asked})
    prompt, limit = torch.full((len(rows), 1), BOS), asked.lengths + 5
    found = Greedy()(model, memory, prompt, limit)
    answers = zip(found.tokens[:, 0].tolist(), found.lengths[:, 0].tolist(), strict=True)
    right = 0
    for row, (tokens, size) in zip(rows, answers, strict=True):
        right += tokens[:size] == [*ANSWERS[task](row), EOS]
    return right / len(rows)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(family: str, task: str) -> None:
    assert accuracy(learn(*FAMILIES[family], task, 5), task, 5) >= BAR


def test_a_transformer_of_newer_parts_learns() -> None:
    assert accuracy(learn(NEWER, NEWER, "reverse", 5), "reverse", 5) >= BAR


def test_a_transformer_encoder_teaches_a_recurrent_decoder() -> None:
    assert accuracy(learn(TRANSFORMER, RECURRENT, "reverse", 5), "reverse", 5) >= BAR


def test_one_vector_can_hold_a_short_string() -> None:
    """Without attention all that is known of the source passes through its summary."""
    assert accuracy(learn(RECURRENT | {"width": 128}, FIXED, "copy", 4), "copy", 4) >= BAR


def test_what_is_fed_back_learns() -> None:
    decoder = RECURRENT | {"input_feeding": True, "order": "before", "connection": "additive"}
    assert accuracy(learn(RECURRENT, decoder, "reverse", 5), "reverse", 5) >= BAR


@pytest.mark.parametrize("task", MONOTONIC)
def test_hard_monotonic_attention_learns(task: str) -> None:
    """What it learns from weights that are spread it does by weights of 0 and 1."""
    decoder = RECURRENT | {"order": "before", "input_feeding": True, "connection": "monotonic"}
    assert accuracy(learn(RECURRENT, decoder, task, 4, rate=1e-2), task, 4) >= BAR
