"""Batches that do not fit into the memory: the same gradient in parts, and nothing left out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny
import torch

from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.dropout import Dropout
from transduce.recipe.validate import loss as dev_loss
from transduce.sequences import Sequences
from transduce.train import checkpoint
from transduce.train.fitting import Fitting, TooLarge, out_of_memory, positions
from transduce.train.loop import Plan, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner, Loss, Moment, Objective
from transduce.train.optimise import InverseSquareRoot, OptimiserBlueprint
from transduce.train.precision import Precision

CPU, FP32 = torch.device("cpu"), Precision(torch.float32, "test")
LENGTHS = [5, 4, 4, 3, 2, 2, 1]
OPTIMISER = OptimiserBlueprint(rate=1.0, clip=1e9, schedule=InverseSquareRoot(warmup=0))
ON_A_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
FOR_THE_PROCESSOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 144115188075855872 bytes. Error code 12 (Cannot allocate memory)"
)


def batch(lengths: list[int]) -> Batch:
    draw = torch.Generator().manual_seed(len(lengths))
    made = [torch.randint(3, 6, (length,), generator=draw) for length in lengths]
    target = Sequences.stack([torch.tensor([1, *row.tolist(), 2]) for row in made])
    return Batch({"source": Sequences.stack(made)}, target, torch.arange(len(lengths)) + 40)


class Small:
    """An objective for a machine with room for so many positions, in the backward pass or before.

    What it raises is what torch raises there.
    """

    def __init__(self, objective: Objective, room: int, error: Exception, late: bool) -> None:
        self.objective, self.room, self.error, self.late = objective, room, error, late
        self.sizes: list[int] = []

    def __call__(self, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        self.sizes.append(positions(batch))
        loss = self.objective(model, batch, moment)
        if positions(batch) <= self.room:
            return loss
        if not self.late:
            raise self.error
        weight = model.get_parameter("decoder.embedding.weight")

        def fail(gradient: torch.Tensor) -> None:
            raise self.error

        trap = weight.sum() * 1.0
        trap.register_hook(fail)  # type: ignore[no-untyped-call]
        return Loss(loss.total + 0 * trap, loss.nll)


def train(room: int, error: Exception = ON_A_GPU, late: bool = False) -> tuple[TrainState, Small]:
    """Make two updates of two batches each on a machine with so much room, without dropout."""
    model = tiny.bundle(tiny.MODELS["mixed"]).model
    for part in model.modules():
        if isinstance(part, Dropout):
            part.rate = 0.0
    objective = Small(CrossEntropyBlueprint().build(), room, error, late)
    state = TrainState(Learner(model, objective), torch.optim.SGD(model.parameters(), 0.1), START)
    plan = Plan(OPTIMISER, 2, 2, 5, CPU, FP32)
    stream = ((Position(0, n), batch(LENGTHS[: 7 - n % 3])) for n in range(1, 9))
    list(steps(state, stream, plan))
    return state, objective


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [ON_A_GPU, FOR_THE_PROCESSOR, MemoryError()])
def test_what_does_not_fit_is_computed_in_parts_with_the_same_gradient(
    error: Exception, late: bool
) -> None:
    whole, seen = train(10**9)
    parts, tried = train(20, error, late)
    assert max(seen.sizes) > 80
    fitting = [size for size in tried.sizes if size <= 20]
    assert len(fitting) > len(seen.sizes)
    ours, theirs = (
        torch.nn.utils.parameters_to_vector(state.learner.parameters()) for state in (parts, whole)
    )
    assert not torch.equal(ours, torch.zeros_like(ours))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (parts.step, parts.tokens) == (whole.step, whole.tokens)


def test_what_was_too_large_once_is_not_tried_again() -> None:
    _, tried = train(20)
    too_large = [size for size in tried.sizes if size > 20]
    assert too_large == sorted(set(too_large), reverse=True)


def test_a_run_that_goes_on_computes_the_same_parts(tmp_path: Path) -> None:
    state, _ = train(20)
    assert state.limit < math.inf
    saved = checkpoint.save(tmp_path, state)
    fresh, _ = train(10**9)
    assert fresh.limit == math.inf
    checkpoint.load(saved, fresh)
    assert fresh.limit == state.limit
    for one in (state, fresh):  # what would fit now is cut as it was
        stream = ((Position(0, n), batch(LENGTHS)) for n in range(1, 3))
        list(steps(one, stream, Plan(OPTIMISER, 3, 2, 5, CPU, FP32)))
    ours, theirs = (
        torch.nn.utils.parameters_to_vector(one.learner.parameters()) for one in (state, fresh)
    )
    assert torch.equal(ours, theirs)


def test_one_row_that_does_not_fit_is_named() -> None:
    with pytest.raises(TooLarge) as caught:
        train(10)
    assert caught.value.row == 40
    assert batch(LENGTHS).index[0] == 40


def test_other_errors_are_not_about_memory() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        train(20, RuntimeError("size mismatch"))
    assert not out_of_memory(ValueError("no"))


def test_this_machine_says_what_is_expected_when_it_has_no_memory_left() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    assert out_of_memory(caught.value)


def test_halves_have_all_rows_and_no_padding_that_none_of_them_needs() -> None:
    whole = batch(LENGTHS)
    last = whole.take(torch.arange(4, 7))
    assert whole.target is not None
    assert last.target is not None
    assert last.index.tolist() == [44, 45, 46]
    assert last.sources["source"].data.tolist() == whole.sources["source"].data[4:, :2].tolist()
    assert last.target.data.tolist() == whole.target.data[4:, :4].tolist()
    fitting = Fitting()
    fitting.limit = 20
    parts = fitting.parts(whole)
    assert torch.cat([part.index for part in parts]).tolist() == whole.index.tolist()
    assert all(positions(part) < 20 or len(part) == 1 for part in parts)


def test_the_loss_on_dev_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.bundle(tiny.MODELS["recurrent"]).model
    whole = dev_loss(model, [batch(LENGTHS)], CPU, FP32).mean
    forward, sizes = type(model).forward, []

    def small(
        self: Seq2Seq, sources: dict[str, Sequences], inputs: Sequences, labels: Sequences
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise ON_A_GPU
        return forward(self, sources, inputs, labels)

    monkeypatch.setattr(type(model), "forward", small)
    assert dev_loss(model, [batch(LENGTHS)], CPU, FP32).mean == pytest.approx(whole, rel=1e-6)
    assert min(sizes) <= 2 < max(sizes)
