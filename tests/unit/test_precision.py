"""Number types: which one is chosen and why, and that models learn the same in both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from pydantic import ValidationError

from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.experiment import TrainBlueprint
from transduce.models.build import ModelBlueprint, build
from transduce.sequences import Sequences
from transduce.train import precision
from transduce.train.loop import Plan, TrainState, Update, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision, choose

CPU = torch.device("cpu")
FP32, BF16 = (Precision(dtype, "test") for dtype in (torch.float32, torch.bfloat16))
LSTM = {"kind": "recurrent", "embedding": 16, "width": 32, "dropout": 0.1}
TRANSFORMER = {"kind": "transformer", "width": 32, "layers": 1, "heads": 2, "inner": 64}


@pytest.mark.parametrize(("setting", "dtype"), [("fp32", FP32.dtype), ("bf16", BF16.dtype)])
def test_what_is_asked_for_is_taken(setting: precision.Setting, dtype: torch.dtype) -> None:
    chosen = choose(setting, CPU)
    assert chosen == Precision(dtype, "as configured")
    assert str(chosen) == setting


Machine = Callable[[bool, float], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Pretend to be a machine that has bf16 instructions or not, and is so much faster in it."""

    def pretend(able: bool, gain: float) -> None:
        seconds = {torch.float32: gain, torch.bfloat16: 1.0}
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able)
        monkeypatch.setattr(precision, "_time", lambda dtype, _: seconds[dtype])

    return pretend


@pytest.mark.parametrize(
    ("able", "gain", "chosen"),
    [
        (True, 1.9, "bf16: 1.9 times as fast as fp32 here"),
        (True, 1.1, "fp32: bf16 is 1.1 times as fast here, not worth it"),
        (False, 9.0, "fp32: this cpu has no bf16 instructions"),
    ],
)
def test_auto_takes_what_is_faster_and_says_why(
    machine: Machine, able: bool, gain: float, chosen: str
) -> None:
    machine(able, gain)
    found = choose("auto", CPU)
    assert f"{found}: {found.reason}" == chosen


def test_auto_settles_on_something_here() -> None:
    found = choose("auto", CPU)
    assert str(found) in ("fp32", "bf16")
    assert "here" in found.reason or "no bf16 instructions" in found.reason


def test_there_is_no_other_setting() -> None:
    assert TrainBlueprint().precision == "auto"
    with pytest.raises(ValidationError):
        TrainBlueprint.model_validate({"precision": "fp16"})


@pytest.mark.parametrize("chosen", [FP32, BF16], ids=str)
def test_matrix_products_run_in_it_and_sums_do_not(chosen: Precision) -> None:
    left, right = torch.rand(3, 4), torch.rand(4, 5)
    with chosen.autocast(CPU):
        assert (left @ right).dtype == chosen.dtype
        assert (left + left).dtype == torch.float32
    assert (left @ right).dtype == torch.float32, "it ends with the context"


def reversals() -> Iterator[tuple[Position, Batch]]:
    """Yield strings of three symbols with the same strings from back to front."""
    draw, number = torch.Generator().manual_seed(0), 0
    while True:
        rows = torch.randint(3, 9, (32, 3), generator=draw)
        bos, eos = torch.full((32, 1), 1), torch.full((32, 1), 2)
        source = Sequences(torch.cat([rows, eos], 1), torch.full((32,), 4))
        target = Sequences(torch.cat([bos, rows.flip(1), eos], 1), torch.full((32,), 5))
        number += 1
        yield Position(0, number), Batch({"source": source}, target, torch.arange(32))


def learn(part: dict[str, object], chosen: Precision) -> list[Update]:
    torch.manual_seed(1)
    blueprint = ModelBlueprint.model_validate({"encoder": part, "decoder": part})
    model = build(blueprint, {"source": 9, "target": 9})
    optimiser = OptimiserBlueprint.model_validate(
        {"rate": 1e-2, "schedule": {"kind": "cosine", "warmup": 20}}
    )
    learner = Learner(model, CrossEntropyBlueprint(smoothing=0.0).build())
    state = TrainState(learner, optimiser.build(model), START)
    made = list(steps(state, reversals(), Plan(optimiser, 150, 1, 1, CPU, chosen)))
    assert all(p.dtype == torch.float32 for p in learner.parameters())
    return made


@pytest.mark.parametrize("part", [LSTM, TRANSFORMER], ids=lambda part: str(part["kind"]))
def test_learning_reaches_a_similar_loss_in_both(part: dict[str, object]) -> None:
    losses = []
    for updates in map(partial(learn, part), (FP32, BF16)):
        first, last = (
            float(torch.stack([u.nll for u in some]).sum()) / sum(u.tokens for u in some)
            for some in (updates[:10], updates[-20:])
        )
        assert last < first / 2, "it has learned something"
        losses.append(last)
    assert losses[1] == pytest.approx(losses[0], rel=0.15, abs=0.02)
