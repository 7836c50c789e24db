"""Checkpoints: whole or not at all, in order, and a run that goes on as if nothing had happened."""

from __future__ import annotations

import math
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from transduce import folder
from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.problem import Problem
from transduce.sequences import Sequences
from transduce.train import checkpoint
from transduce.train.loop import Plan, Stream, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision

OPTIMISER = OptimiserBlueprint(rate=1e-2, weight_decay=0.1)


def stream(start: Position) -> Stream:
    """Yield random batches from a position on."""
    for number in count(start.batch):
        draw = torch.Generator().manual_seed(number)
        rows = torch.randint(3, 6, (4, 5), generator=draw)
        read = Sequences(rows, torch.tensor([5, 4, 2, 1]))
        yield Position(0, number + 1), Batch({"source": read}, read, torch.arange(4))


def state(seed: int, facts: dict[str, Any] = tiny.MODELS["mixed"]) -> TrainState:
    model = tiny.bundle(facts).model
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    learner = Learner(model, CrossEntropyBlueprint().build())
    return TrainState(learner, OPTIMISER.build(model), START)


def go_on(at: TrainState, until: int) -> TrainState:
    plan = Plan(OPTIMISER, until, 1, 5, torch.device("cpu"), Precision(torch.float32, "test"))
    for _ in steps(at, stream(at.position), plan):
        pass
    return at


def all_tensors(at: TrainState) -> dict[str, torch.Tensor]:
    found = checkpoint.tensors(at.learner.model)
    for index, values in at.optimiser.state_dict()["state"].items():
        found |= {f"{index}.{name}": value for name, value in values.items()}
    return found


def same(one: TrainState, other: TrainState) -> bool:
    """Compare weights and optimiser bit for bit."""
    ours, theirs = all_tensors(one), all_tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("name", tiny.MODELS)
def test_what_is_loaded_is_what_was_saved_and_goes_on_alike(tmp_path: Path, name: str) -> None:
    before = go_on(state(1, tiny.MODELS[name]), 3)
    before.scores, before.seconds = [0.1, -math.inf, 1 / 3], 0.1 + 0.2
    saved = checkpoint.save(tmp_path, before)
    assert saved == tmp_path / "step-0000003"
    after = state(2, tiny.MODELS[name])
    checkpoint.load(saved, after)
    assert same(before, after)
    for fact in ("step", "position", "tokens", "seconds", "scores"):
        assert getattr(before, fact) == getattr(after, fact), fact
    assert isinstance(after.position, Position)
    assert checkpoint.threads(saved) == torch.get_num_threads()
    assert same(go_on(before, 6), go_on(after, 6)), "resumed = uninterrupted, bit for bit"


def test_the_settings_of_the_optimiser_are_those_of_the_experiment(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, go_on(state(1), 1))
    after = state(2)
    for group in after.optimiser.param_groups:
        group["betas"] = (0.5, 0.6)
    checkpoint.load(saved, after)
    assert {group["betas"] for group in after.optimiser.param_groups} == {(0.5, 0.6)}
    assert {group["weight_decay"] for group in after.optimiser.param_groups} == {0.0, 0.1}


def test_a_run_can_be_saved_before_its_first_update(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, state(1))
    after = state(2)
    checkpoint.load(saved, after)
    assert same(go_on(state(1), 2), go_on(after, 2))


def test_saving_again_replaces_what_was(tmp_path: Path) -> None:
    at = go_on(state(1), 2)
    checkpoint.save(tmp_path, at)
    at.tokens = 1234
    saved = checkpoint.save(tmp_path, at)
    assert folder.read_json(saved / "state.json")["tokens"] == 1234
    assert checkpoint.every(tmp_path) == [saved]


def make(root: Path, *numbers: int) -> list[Path]:
    """Write checkpoints that hold next to nothing."""
    paths = [root / checkpoint.name(number) for number in numbers]
    for path in paths:
        folder.write(path, lambda fresh: folder.write_json(fresh / "state.json", {}))
    return paths


def damage(path: Path) -> None:
    (path / "state.json").write_bytes(b"[]\n")


def test_checkpoints_are_listed_oldest_first_and_nothing_else_is(tmp_path: Path) -> None:
    wanted = make(tmp_path, 9, 100, 2_000_000, 9_999_999, 10_000_000)
    for other in ("step-0000005.damaged", ".step-0000006.gone", "step-7", "step-last"):
        (tmp_path / other).mkdir()
    assert checkpoint.every(tmp_path) == wanted
    assert checkpoint.every(tmp_path / "nowhere") == []


def test_a_removed_checkpoint_is_gone_even_if_one_was_half_removed_before(tmp_path: Path) -> None:
    first, second = make(tmp_path, 1, 2)
    shutil.copytree(first, tmp_path / f".{first.name}.gone")
    checkpoint.remove(first)
    assert [path.name for path in tmp_path.iterdir()] == [second.name]


def test_the_newest_that_is_sound_is_found_and_the_others_are_set_aside(tmp_path: Path) -> None:
    *_, second, third, fourth = make(tmp_path, 1, 2, 3, 4)
    damage(third)
    (fourth / "manifest.json").unlink()
    found, problems = checkpoint.newest(tmp_path)
    assert found == second
    assert [problem.where for problem in problems] == [
        str(fourth / "manifest.json"),
        str(third / "state.json"),
    ]
    assert checkpoint.newest(tmp_path) == (second, [])
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"{third.name}.damaged", f"{fourth.name}.damaged"} < names


def test_a_checkpoint_may_be_damaged_twice(tmp_path: Path) -> None:
    for _ in range(2):
        (only,) = make(tmp_path, 1)
        damage(only)
        found, problems = checkpoint.newest(tmp_path)
        assert found is None
        assert len(problems) == 1


def test_a_run_that_has_saved_nothing_has_no_newest(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "checkpoints") == (None, [])


def test_the_average_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    paths = [checkpoint.save(tmp_path / str(seed), go_on(state(seed), 1)) for seed in range(3)]
    kept = [load_file(path / "weights.safetensors") for path in paths]
    mean = checkpoint.average(iter(paths))
    assert mean.keys() == kept[0].keys()
    for key, tensor in mean.items():
        wanted = torch.stack([weights[key].double() for weights in kept]).mean(0).float()
        torch.testing.assert_close(tensor, wanted, rtol=1e-7, atol=0)
    alone = checkpoint.average(paths[:1])
    assert all(torch.equal(alone[key], kept[0][key]) for key in alone)


def test_damaged_weights_are_not_averaged(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, state(1))
    content = bytearray((saved / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "weights.safetensors").write_bytes(content)
    with pytest.raises(Problem, match=r"weights.safetensors: the file is damaged"):
        checkpoint.average([saved])


def test_weights_of_another_model_are_refused_and_change_nothing(tmp_path: Path) -> None:
    model = state(1).learner.model
    before = {name: value.clone() for name, value in checkpoint.tensors(model).items()}
    other = {name: torch.zeros_like(value) for name, value in before.items()}
    *_, last = other
    for wrong, says in (
        (other | {"decoder.more": torch.zeros(1)}, "another model: decoder.more is in one alone"),
        (other | {last: torch.zeros(1, 2)}, rf"{last} has shape \(1, 2\), the model wants"),
    ):
        with pytest.raises(Problem, match=says):
            checkpoint.load_tensors(model, wrong, tmp_path / "weights.safetensors")
        after = checkpoint.tensors(model)
        assert all(torch.equal(before[name], after[name]) for name in before)
