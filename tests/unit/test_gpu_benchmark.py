"""The benchmark of GPUs runs without one, so that it runs on the day there is one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from transduce import tree
from transduce.train.objective import CrossEntropyBlueprint, Learner

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("gpu")
    for name in ("gpu", "common"):
        sys.modules.pop(name, None)


def test_it_says_that_there_is_no_gpu(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().out.count("\n") == 1


def test_every_figure_is_printed(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--tiny"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.split("\n") if "|" in line]
    trained = [row for row in rows if row[-1].endswith("% |")]
    assert len(trained) == len(gpu.MODELS)
    asked = [row for row in rows if "greedy" in row[0] or "beam" in row[0]]
    assert len(asked) == 2 * len(gpu.MODELS) * len(gpu.SEARCHES)
    stepped = [row for row in rows if ", batch " in row[0]]
    assert len(stepped) == len(gpu.MODELS) * len(gpu.TINY.rows)
    for row in asked + stepped:
        assert all(float(cell.strip(" |").replace(",", "")) > 0 for cell in row[1:])


@pytest.mark.parametrize("number", range(3))
@torch.no_grad()
def test_steps_in_place_are_steps(gpu: Any, number: int) -> None:
    model = gpu.made(list(gpu.MODELS)[number], gpu.TINY).eval()
    memory = model.encode({"source": gpu.random_batches(gpu.TINY, 1)[0].sources["source"]})
    prompt = torch.ones(len(memory["source"].states), 1, dtype=torch.long)
    steps = gpu.FixedStep(model, memory, prompt, 12)
    places = [leaf.data_ptr() for leaf, _ in tree.leaves(steps.state)]
    assert torch.equal(steps.run(11), gpu.growing(model, memory, prompt, 11))
    assert [leaf.data_ptr() for leaf, _ in tree.leaves(steps.state)] == places


@pytest.mark.parametrize("number", range(3))
def test_operations_are_those_of_a_batch_without_padding(gpu: Any, number: int) -> None:
    """Held against torch's count of the products that run; it counts no recurrent layers."""
    sizes = gpu.TINY._replace(symbols=400, tokens=40)
    name = list(gpu.MODELS)[number]
    model = gpu.made(name, sizes)
    batch = gpu.random_batches(sizes, 2)[1].take(torch.tensor([0]))
    expected = gpu.operations(model, batch)
    learner = Learner(model, CrossEntropyBlueprint().build())
    with FlopCounterMode(display=False) as counter:
        learner(batch).total.backward()
    run = float(counter.get_total_flops())
    if "LSTM" in name:
        assert run < expected
        return
    # A decoder computes also what it then hides, the later half of its attention to itself; torch
    # does not count a product that is added in place, the gradient of the output layer.
    length = float(batch.labels.lengths[0])
    hidden = 3 * 4 * model.decoder.width * length**2 / 2
    added = 2 * model.decoder.embedding.weight.numel() * length
    assert run == pytest.approx(expected + hidden - added)
