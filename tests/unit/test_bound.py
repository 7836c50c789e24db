"""Memory that is bound: more than there is runs out as an error that training deals with."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest
import tiny
import torch

from transduce.blueprint import parse
from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.experiment import Experiment, TrainBlueprint
from transduce.problem import Problem
from transduce.sequences import Sequences
from transduce.train import bound as module
from transduce.train.bound import bound, bounded, free, size
from transduce.train.fitting import out_of_memory
from transduce.train.loop import Plan, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision

CPU, FP32 = torch.device("cpu"), Precision(torch.float32, "test")
LENGTH, LITTLE = 60, 8 << 20

pytestmark = pytest.mark.skipif(not module.STATUS.exists(), reason="Linux alone has it")


def taken() -> int:
    lines = module.STATUS.read_text().split("\n")
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))


def test_what_is_too_much_is_an_error_and_the_bound_ends() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises((RuntimeError, MemoryError)) as caught, bounded(taken() + LITTLE):
        torch.ones(1 << 34)
    assert out_of_memory(caught.value)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with bounded(None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def learned(rows: int, memory: int | None) -> tuple[TrainState, torch.Tensor]:
    """Make one update with so many rows; return where it led."""
    facts = {name: part | {"dropout": 0.0} for name, part in tiny.MODELS["transformer"].items()}
    model = tiny.bundle(facts).model
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 6, (rows, LENGTH), generator=draw)
    side = Sequences(ids, torch.full((rows,), LENGTH))
    learner = Learner(model, CrossEntropyBlueprint().build())
    state = TrainState(learner, torch.optim.SGD(model.parameters(), 0.1), START)
    plan = Plan(OptimiserBlueprint(), 1, 1, 5, CPU, FP32, memory=memory)
    list(steps(state, iter([(Position(0, 1), Batch({"source": side}, side, ids[:, 0]))]), plan))
    return state, torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def test_a_batch_that_finds_no_room_is_computed_in_parts() -> None:
    rows = 64
    learned(rows, None)  # what an update needs once, such as the stack of a thread, is there
    while True:  # what was freed before is still there for a while
        state, found = learned(rows, taken() + LITTLE)
        if state.limit < math.inf:
            break
        rows *= 2
    assert state.limit <= 2 * rows * LENGTH
    whole, wanted = learned(rows, None)
    assert whole.limit == math.inf
    assert whole.tokens == state.tokens
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("group", ["0::/a/b", "3:memory:/a/b\n2:cpu:/x"])
def test_what_is_free_is_what_machine_and_groups_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    assert 0 < free() < 1 << 50
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    (tmp_path / "own").write_text(f"{group}\n")
    below, limit, used, cached = module.VERSIONS["" if group.startswith("0") else "memory"]
    inside = tmp_path / "groups" / below / "a"
    (inside / "b").mkdir(parents=True)
    for folder, most in ((inside, "4000000"), (inside / "b", "max")):
        (folder / limit).write_text(f"{most}\n")
        (folder / used).write_text("3000000\n")
        (folder / "memory.stat").write_text(f"anon 7\n{cached} 1000000\n")
    monkeypatch.setattr(module, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(module, "OWN", tmp_path / "own")
    monkeypatch.setattr(module, "GROUPS", tmp_path / "groups")
    assert free() == 2_000_000
    (inside / limit).write_text("max\n")
    assert free() == 5000 << 10


def test_how_much_is_a_setting() -> None:
    assert bound(None, CPU, 1) is None
    assert bound("1.5 GB", CPU, 4) == size("1.5 GB") == 1_500_000_000
    before = taken()
    most = bound("auto", CPU, 1)
    assert most is not None
    assert before <= most <= taken() + free()
    with pytest.raises(Problem, match="how much each may have"):
        bound("auto", CPU, 2)
    cuda = torch.device("cuda")
    assert bound("auto", cuda, 2) is None
    with pytest.raises(Problem, match="says by itself"):
        bound("6 GB", cuda, 1)
    assert TrainBlueprint(memory="200 MB").memory == "200 MB"
    for wrong in ("much", "6", "0 GB", "6 TB"):
        with pytest.raises(ValueError, match="is no size"):
            TrainBlueprint(memory=wrong)


def test_a_bound_may_change_while_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transduce.recipe import train
    from transduce.train.progress import Show

    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.tsv").write_text("ab\tba\nabb\tbba\n", encoding="utf-8")
    settings = """
data: {train: {kind: tsv, path: t.tsv}, dev: {kind: tsv, path: t.tsv}}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 8, width: 8}
  decoder: {kind: recurrent, embedding: 8, width: 8}
train: {max_steps: 1, threads: 1, precision: fp32, memory: auto}
validation: {every: 1, examples: 1, choose_by: loss}
"""
    for changes in ((), ("train.max_steps=2", "train.memory=64 GB")):
        experiment = parse(settings, Experiment, "x", changes)
        assert train(experiment, tmp_path, tmp_path / "run", Show(quiet=True)) == 0
