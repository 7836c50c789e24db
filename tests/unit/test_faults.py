"""Updates that are not numbers: left out and kept, made again bit for bit, and the run goes on."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from transduce import folder
from transduce.blueprint import parse
from transduce.data.batch import Batch
from transduce.experiment import Experiment
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.recipe import train
from transduce.recipe.replay import Replay, replay
from transduce.report.run import read as read_report
from transduce.sequences import Sequences
from transduce.train import checkpoint
from transduce.train.locate import first_fault
from transduce.train.objective import CrossEntropyBlueprint, Learner, Moment
from transduce.train.objective.cross_entropy import CrossEntropy
from transduce.train.objective.interface import Loss
from transduce.train.progress import Show

SETTINGS = """
data: {train: {kind: tsv, path: train.tsv}, dev: {kind: tsv, path: dev.tsv}}
text: {source: {tokens: characters}}
model:
  encoder: {kind: recurrent, embedding: 6, width: 8, dropout: 0.2}
  decoder: {kind: recurrent, embedding: 6, width: 8, dropout: 0.2}
train: {max_steps: 20, batch: {tokens: 64}, accumulate: 2, threads: 1, precision: fp32}
validation: {every: 6, examples: 2}
metrics: [exact]
"""
FLAT = (
    "train.optimiser.schedule={kind: plateau, warmup: 0, patience: 99}",
    "train.optimiser.rate=0.01",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRANSDUCE_CACHE", str(tmp_path / "cache"))
    for name, count in (("train", 100), ("dev", 10)):
        rows = (f"{number:03d}\t{number:03d}\n" for number in range(count))
        (tmp_path / f"{name}.tsv").write_text("".join(rows), encoding="utf-8")
    return tmp_path


def run(home: Path, name: str, *changes: str) -> Path:
    experiment = parse(SETTINGS, Experiment, "exp.yaml", changes)
    assert train(experiment, home, home / name, Show()) == 0
    return home / name


def spoil(monkeypatch: pytest.MonkeyPatch, faulty: Callable[[int, float], bool]) -> None:
    """Let the loss overflow wherever ``faulty(step, rate)`` says."""
    from transduce.train import loop

    rates = [0.0]
    set_rate, plain = loop._set_rate, CrossEntropy.__call__

    def note(state: Any, plan: Any) -> float:
        rates[0] = set_rate(state, plan)
        return rates[0]

    def spoiled(self: CrossEntropy, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        loss = plain(self, model, batch, moment)
        if not faulty(moment.step + 1, rates[0]):
            return loss
        return Loss(loss.total * math.inf, loss.nll)

    monkeypatch.setattr(loop, "_set_rate", note)
    monkeypatch.setattr(CrossEntropy, "__call__", spoiled)


def journal(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "train.jsonl").read_text(encoding="utf-8").split("\n")
    return [record for record in map(json.loads, filter(None, lines)) if record["kind"] == kind]


def weights(run: Path) -> str:
    return folder.digest(checkpoint.every(run / "checkpoints")[-1] / "weights.safetensors")


def test_a_fault_is_told_written_down_and_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, lambda step, _: step in (4, 9))
    done = run(home, "run", "train.faults.kept=1", "train.log_every=4")
    said = capsys.readouterr().err
    assert (
        f"warning: step 4 is left out: its loss is inf and the norm of its gradient nan; to see "
        f"why: transduce replay {done}/faults/step-0000004" in said
    )
    assert "warning: step 9 is left out: its loss is inf and the norm of its gradient nan\n" in said
    faults = journal(done, "fault")
    assert [record["step"] for record in faults] == [4, 9]
    assert faults[0]["loss"] == "inf"
    assert all(str(home / "train.tsv:") in place for place in faults[0]["examples"])
    kept = checkpoint.every(done / "faults")
    assert [path.name for path in kept] == ["step-0000004"]
    facts = folder.read_json(kept[0] / "fault.json")
    assert (facts["step"], facts["position"], facts["seed"]) == (3, [0, 6], 1)
    assert all(math.isfinite(record["nll"]) for record in journal(done, "step"))
    assert "2 updates were left out: loss or gradient was not a number." in read_report(done).notes
    state = folder.read_json(done / "checkpoints" / "step-0000020" / "state.json")
    assert (state["left_out"], state["in_a_row"], state["returns"]) == (2, 0, 0)


def test_a_run_goes_back_and_on_with_a_lower_rate(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Above some rate updates 9 to 14 fail, so that at half of it the run goes through."""
    spoil(monkeypatch, lambda step, rate: 9 <= step <= 14 and rate > 0.004)
    done = run(home, "run", *FLAT, "train.log_every=1")
    assert "3 updates in a row were not numbers: back from step 11 to step 6, and on with 0.5" in (
        capsys.readouterr().err
    )
    returns = journal(done, "return")
    assert [(r["step"], r["from"], r["rate_factor"]) for r in returns] == [
        (7, 11, 0.5),
        (7, 11, 0.25),
    ]
    told = "6 updates were left out: loss or gradient was not a number, and the run went back 2"
    assert f"{told} times to go on at a lower rate." in read_report(done).notes
    rates = {r["step"]: r["learning_rate"] for r in journal(done, "step")}
    assert [rates[step] for step in (6, 7, 20)] == [0.01, 0.0025, 0.0025]
    assert list(rates) == list(range(1, 21))
    assert [r["step"] for r in journal(done, "validation")] == [6, 12, 18, 20]


@pytest.mark.parametrize("stop", [8, 9, 10, 11, 13])
def test_a_run_that_was_stopped_in_between_goes_back_to_the_same_place(
    home: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    spoil(monkeypatch, lambda step, rate: 9 <= step <= 14 and rate > 0.004)
    whole = run(home, "whole", *FLAT)
    run(home, "parts", *FLAT, f"train.max_steps={stop}")
    parts = run(home, "parts", *FLAT)
    assert weights(whole) == weights(parts)
    counts = [
        folder.read_json(checkpoint.every(one / "checkpoints")[-1] / "state.json")
        for one in (whole, parts)
    ]
    for name in ("left_out", "returns", "tokens", "position"):
        assert counts[0][name] == counts[1][name], name


def test_a_run_that_going_back_does_not_help_gives_up_and_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda step, _: step >= 2)
    with pytest.raises(Problem) as caught:
        run(home, "run", "train.faults.returns=2", "train.faults.in_a_row=2")
    assert str(caught.value) == (
        f"{home}/run/faults: 2 updates in a row are not numbers at step 3, after the run went back "
        f"2 times and lowered its rate; look for the cause with: transduce replay {home}/run, then "
        "begin anew with a lower train.optimiser.rate, a longer warmup or train.precision: fp32"
    )
    assert [path.name for path in checkpoint.every(home / "run" / "checkpoints")] == [
        "step-0000000"
    ]


def test_a_run_that_gave_up_goes_on_where_it_may_go_back_more_often(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda step, rate: step >= 2 and rate > 0.002)
    with pytest.raises(Problem, match="went back 2 times"):
        run(home, "run", *FLAT, "train.faults.returns=2")
    done = run(home, "run", *FLAT, "train.faults.returns=3", "train.faults.kept=0")
    assert journal(done, "return")[-1]["rate_factor"] == 0.125


def cramp(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Let the memory run out for more than so many examples."""
    plain = CrossEntropy.__call__

    def cramped(self: CrossEntropy, model: Seq2Seq, batch: Batch, moment: Moment) -> Loss:
        if len(batch) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plain(self, model, batch, moment)

    monkeypatch.setattr(CrossEntropy, "__call__", cramped)


def test_where_memory_runs_out_training_goes_on_in_parts(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cramp(monkeypatch, 4)
    done = run(home, "run", "train.max_steps=3")
    told = [record["positions"] for record in journal(done, "memory")]
    assert told == sorted(told, reverse=True)
    said = capsys.readouterr().err
    assert f"step 1: memory ran out for a batch of {told[0]} positions; it was" in said
    assert f"Memory ran out {len(told)} times in process 1: such batches were" in " ".join(
        read_report(done).notes
    )
    monkeypatch.undo()
    monkeypatch.setenv("TRANSDUCE_CACHE", str(home / "cache"))
    whole = run(home, "whole", "train.max_steps=3")
    for name in ("tokens", "position"):
        counted = [
            folder.read_json(one / "checkpoints" / "step-0000003" / "state.json")[name]
            for one in (done, whole)
        ]
        assert counted[0] == counted[1]


def test_an_example_that_does_not_fit_alone_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cramp(monkeypatch, 0)
    with pytest.raises(Problem) as caught:
        run(home, "run")
    assert re.fullmatch(
        rf"{home}/train\.tsv:\d+: this example alone does not fit into the memory; set .*",
        str(caught.value),
    )


class Overflow(nn.Module):
    """Puts out infinity for one symbol, or gives its gradient no number."""

    def __init__(self, inner: nn.Module, late: bool) -> None:
        super().__init__()
        self.inner, self.late = inner, late

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        one = (out * 0).sum()
        return out + (one.sqrt() * 0 if self.late else one + math.inf)


def overflow(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Let what the encoder reads overflow in some updates; return which, as a set to be changed."""
    from transduce.models.encoders import recurrent

    plain = recurrent.RecurrentEncoder.forward
    broken = {5}

    def forward(self: recurrent.RecurrentEncoder, source: Sequences) -> Any:
        if torch.initial_seed() - 1_000_003 + 1 in broken and self.training:
            (table,) = (part for part in self.modules() if isinstance(part, nn.Embedding))
            handle = table.register_forward_hook(lambda _module, _inputs, out: out * 1e38 * 10)
            try:
                return plain(self, source)
            finally:
                handle.remove()
        return plain(self, source)

    monkeypatch.setattr(recurrent.RecurrentEncoder, "forward", forward)
    return broken


def test_replay_makes_the_update_again_bit_for_bit_and_names_the_layer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks here is a weight that grew: its product overflows at a step of its own."""
    broken = overflow(monkeypatch)
    done = run(home, "run")
    kept = done / "faults" / "step-0000005"
    for found in (replay(done), replay(kept)):
        assert isinstance(found, Replay)
        assert found.same
        assert found.first is not None
        assert found.first.startswith("what encoders.source")
    assert "as in the run, bit for bit" in str(found)
    assert str(home / "train.tsv:") in str(found)
    broken.clear()
    mended = replay(kept)
    assert not mended.same
    assert mended.first is None
    assert "first not finite: nothing" in str(mended)
    spoiled = bytearray((kept / "batches.safetensors").read_bytes())
    spoiled[-1] ^= 1
    (kept / "batches.safetensors").write_bytes(spoiled)
    with pytest.raises(Problem, match="damaged"):
        replay(kept)
    shutil.rmtree(done / "faults")
    with pytest.raises(Problem, match="nothing to replay"):
        replay(done)


@pytest.mark.parametrize(
    "change",
    [
        "train.optimiser.unfreeze_every=4",
        "train.optimiser.frozen=[encoder]",
        "adapt={kind: lora, rank: 1}",
        "adapt={kind: bottleneck, width: 2}",
    ],
)
def test_replay_holds_still_what_the_run_held_still(
    home: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    base = run(home, "base", "train.max_steps=6")
    broken, changes = overflow(monkeypatch), (f"start={{run: {base}}}", change)
    done = run(home, "run", *changes)
    assert replay(done).same
    broken.clear()
    sound = journal(run(home, "sound", *changes, "train.log_every=1"), "step")[4]
    assert replay(done).norm == sound["gradient_norm"]


def test_replay_of_an_adapter_takes_no_other_base(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = run(home, "base", "train.max_steps=6")
    overflow(monkeypatch)
    done = run(home, "run", f"start={{run: {base}}}", "adapt={kind: bottleneck, width: 2}")
    shutil.rmtree(base)
    run(home, "base", "train.max_steps=6", "seed=2")
    with pytest.raises(Problem, match="not the model that the run began from"):
        replay(done)


def test_all_of_a_batch_is_kept() -> None:
    """Whoever gives a batch more to carry has to let a fault keep it."""
    kept = {"sources", "target", "index", "weights", "alignment"}
    assert {field.name for field in fields(Batch)} == kept


def batch() -> Batch:
    source = Sequences(torch.tensor([[3, 4, 2], [3, 2, 0]]), torch.tensor([3, 2]))
    target = Sequences(torch.tensor([[1, 3, 4, 2], [1, 3, 2, 0]]), torch.tensor([4, 3]))
    return Batch({"source": source}, target, torch.arange(2))


def learner(name: str) -> Learner:
    return Learner(tiny.bundle(tiny.MODELS[name]).model, CrossEntropyBlueprint().build()).train()


def learn(at: Learner) -> None:
    at.zero_grad()
    at(batch()).total.backward()


@pytest.mark.parametrize("name", tiny.MODELS)
def test_nothing_is_found_in_a_sound_model(name: str) -> None:
    at = learner(name)
    assert first_fault(at, lambda: learn(at)) is None
    assert not any(part._forward_hooks for part in at.modules())


@pytest.mark.parametrize("name", tiny.MODELS)
def test_a_weight_that_is_no_number_is_named(name: str) -> None:
    at = learner(name)
    chosen, weight = list(at.model.named_parameters())[3]
    with torch.no_grad():
        weight.view(-1)[0] = math.nan
    expected = f"the weight {chosen}, before anything was computed"
    assert first_fault(at, lambda: learn(at)) == expected


@pytest.mark.parametrize("late", [False, True])
def test_the_layer_that_overflows_first_is_named(late: bool) -> None:
    at = learner("transformer")
    layer = at.model.get_submodule("encoders.source.layers.1")
    name, inner = next(
        (name, part) for name, part in layer.named_modules() if isinstance(part, nn.Linear)
    )
    parent = layer.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], Overflow(inner, late))
    found = first_fault(at, lambda: learn(at))
    where = f"encoders.source.layers.1.{name}"
    if late:
        assert found == f"the gradient that comes to what {where}.inner (Linear) puts out"
    else:
        assert found == f"what {where} (Overflow) puts out"
