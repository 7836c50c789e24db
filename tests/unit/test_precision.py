"""Number types: which one is chosen and why, and that models learn the same in all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.experiment import TrainBlueprint
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import MaskPool
from transduce.sequences import Sequences
from transduce.train import checkpoint, precision, scaling
from transduce.train.fitting import Fitting
from transduce.train.loop import Plan, TrainState, Update, gradient, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner, Loss, Moment
from transduce.train.objective.cross_entropy import CrossEntropy
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import TYPES, Precision, choose

CPU, GPU = torch.device("cpu"), torch.device("cuda")
OPTIMISER = OptimiserBlueprint.model_validate(
    {"rate": 1e-2, "schedule": {"kind": "cosine", "warmup": 20}}
)
FP32, BF16, FP16 = (Precision(dtype, "test") for dtype in TYPES.values())
LSTM = {"kind": "recurrent", "embedding": 16, "width": 32, "dropout": 0.1}
TRANSFORMER = {"kind": "transformer", "width": 32, "layers": 1, "heads": 2, "inner": 64}


@pytest.mark.parametrize(("setting", "dtype"), TYPES.items())
def test_what_is_asked_for_is_taken(setting: precision.Setting, dtype: torch.dtype) -> None:
    chosen = choose(setting, CPU)
    assert chosen == Precision(dtype, "as configured")
    assert str(chosen) == setting


Machine = Callable[[bool, float], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Pretend to be a machine that has bf16 instructions or not, and is so much faster in it."""

    def pretend(able: bool, gain: float) -> None:
        seconds = {torch.float32: gain, torch.bfloat16: 1.0, torch.float16: 1.0}
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
        monkeypatch.setattr(precision, "_time", lambda dtype, _: seconds[dtype])

    return pretend


@pytest.mark.parametrize(
    ("place", "able", "gain", "chosen"),
    [
        (CPU, True, 1.9, "bf16: 1.9 times as fast as fp32 here"),
        (CPU, True, 1.1, "fp32: bf16 is 1.1 times as fast here, not worth it"),
        (CPU, False, 9.0, "fp32: this cpu has no bf16 instructions"),
        (GPU, True, 9.0, "bf16: 9.0 times as fast as fp32 here"),
        (GPU, False, 5.0, "fp16: 5.0 times as fast as fp32 here"),
        (GPU, False, 1.0, "fp32: fp16 is 1.0 times as fast here, not worth it"),
    ],
)
def test_auto_takes_what_is_faster_and_says_why(
    machine: Machine, place: torch.device, able: bool, gain: float, chosen: str
) -> None:
    machine(able, gain)
    found = choose("auto", place)
    assert f"{found}: {found.reason}" == chosen


def test_auto_settles_on_something_here() -> None:
    found = choose("auto", CPU)
    assert str(found) in ("fp32", "bf16")
    assert "here" in found.reason or "no bf16 instructions" in found.reason


def test_there_is_no_other_setting() -> None:
    assert TrainBlueprint().precision == "auto"
    with pytest.raises(ValidationError):
        TrainBlueprint.model_validate({"precision": "int8"})


@pytest.mark.parametrize("chosen", [FP32, BF16, FP16], ids=str)
def test_matrix_products_run_in_it_and_sums_do_not(chosen: Precision) -> None:
    left, right = torch.rand(3, 4), torch.rand(4, 5)
    with chosen.autocast(CPU):
        assert (left @ right).dtype == chosen.dtype
        assert (left + left).dtype == torch.float32
    assert (left @ right).dtype == torch.float32, "it ends with the context"


def reversals(seen: int = 0) -> Iterator[tuple[Position, Batch]]:
    """Yield strings of three symbols with the same strings from back to front, but the first."""
    return islice(_reversals(), seen, None)


def _reversals() -> Iterator[tuple[Position, Batch]]:
    draw, number = torch.Generator().manual_seed(0), 0
    while True:
        rows = torch.randint(3, 9, (32, 3), generator=draw)
        bos, eos = torch.full((32, 1), 1), torch.full((32, 1), 2)
        source = Sequences(torch.cat([rows, eos], 1), torch.full((32,), 4))
        target = Sequences(torch.cat([bos, rows.flip(1), eos], 1), torch.full((32,), 5))
        number += 1
        yield Position(0, number), Batch({"source": source}, target, torch.arange(32))


def begin(part: dict[str, object]) -> TrainState:
    torch.manual_seed(1)
    blueprint = ModelBlueprint.model_validate({"encoder": part, "decoder": part})
    model = build(blueprint, {"source": 9, "target": 9})
    learner = Learner(model, CrossEntropyBlueprint(smoothing=0.0).build())
    return TrainState(learner, OPTIMISER.build(model), START)


def learn(state: TrainState, chosen: Precision, until: int) -> list[Update]:
    made = list(steps(state, reversals(state.step), Plan(OPTIMISER, until, 1, 1, CPU, chosen)))
    assert all(p.dtype == torch.float32 for p in state.learner.parameters())
    return made


@pytest.mark.parametrize("part", [LSTM, TRANSFORMER], ids=lambda part: str(part["kind"]))
def test_learning_reaches_a_similar_loss_in_all(part: dict[str, object]) -> None:
    losses = []
    for chosen in (FP32, BF16, FP16):
        updates = learn(begin(part), chosen, 150)
        first, last = (
            float(torch.stack([u.nll for u in some]).sum()) / sum(u.tokens for u in some)
            for some in (updates[:10], updates[-20:])
        )
        assert last < first / 2, "it has learned something"
        losses.append(last)
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=0.15, abs=0.02)


def faint_gradient(chosen: Precision, scale: float) -> Tensor:
    """Return the gradient at the bottom of a model for examples that count next to nothing."""
    state, (_, batch) = begin(TRANSFORMER), next(reversals())
    batch = replace(batch, weights=torch.full((32, 1), 1e-5))
    plan, pool = Plan(OPTIMISER, 1, 1, 1, CPU, chosen), MaskPool(1)
    gradient(state.learner, [batch], batch.tokens, 0, plan, pool, Fitting(), scale)
    found = state.learner.get_parameter("model.encoders.source.embedding.weight").grad
    assert found is not None
    return found / scale


def test_scaling_saves_what_float16_would_lose() -> None:
    exact = faint_gradient(FP32, 1.0)
    lost = (faint_gradient(FP16, 1.0) - exact).norm() / exact.norm()
    left = (faint_gradient(FP16, scaling.FIRST) - exact).norm() / exact.norm()
    assert lost > 0.5
    assert left < 0.02


def weights(state: TrainState) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in state.learner.parameters()]


def test_a_gradient_too_large_is_computed_again_and_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaling, "FIRST", 2.0**40)
    found = begin(TRANSFORMER)
    made = learn(found, FP16, 5)
    assert [update.fault for update in made] == [None] * 5
    assert (found.left_out, found.position) == (0, Position(0, 5))
    assert 1 < found.scale < 2.0**40
    monkeypatch.setattr(scaling, "FIRST", found.scale)
    direct = begin(TRANSFORMER)
    again = learn(direct, FP16, 5)
    assert [float(update.norm) for update in again] == [float(update.norm) for update in made]
    assert all(map(torch.equal, weights(direct), weights(found)))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_no_number_at_any_scale_is_left_out(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begin(TRANSFORMER)
    before, plain = weights(state), CrossEntropy.__call__

    def spoiled(self: CrossEntropy, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        loss = plain(self, model, batch, moment)
        if where == "loss":
            return loss._replace(total=loss.total * torch.inf)
        loss.total.register_hook(lambda slope: slope * torch.nan)  # type: ignore[no-untyped-call]
        return loss

    monkeypatch.setattr(CrossEntropy, "__call__", spoiled)
    (made,) = learn(state, FP16, 1)
    assert made.fault is not None
    assert (state.left_out, state.scale) == (1, scaling.FIRST)
    assert all(map(torch.equal, weights(state), before))


def test_the_scale_is_tried_anew_and_goes_on_from_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "EVERY", 4)
    whole, part, resumed = (begin(TRANSFORMER) for _ in range(3))
    learn(whole, FP16, 10)
    assert whole.scale == 4 * scaling.FIRST, "tried before the updates 5 and 9"
    learn(part, FP16, 4)
    checkpoint.load(checkpoint.save(tmp_path, part), resumed)
    assert resumed.scale == scaling.FIRST
    learn(resumed, FP16, 10)
    assert resumed.scale == whole.scale
    assert all(map(torch.equal, weights(resumed), weights(whole)))


def test_no_other_type_is_scaled() -> None:
    for chosen in (FP32, BF16):
        state = begin(TRANSFORMER)
        learn(state, chosen, 1)
        assert state.scale == 1
