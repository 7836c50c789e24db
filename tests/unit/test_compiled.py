"""Layers that torch compiles learn what they learn otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import numbers, plan, setting, stream, weights
from test_recompute import CONVOLUTIONAL, MODELS, RECURRENT, model
from test_run import data as data
from test_run import run
from torch import Tensor, fx

from transduce.data.stream import START
from transduce.problem import Problem
from transduce.train.compiled import compile_layers
from transduce.train.loop import TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner

Backend = Callable[[fx.GraphModule, list[Tensor]], Callable[..., Any]]


def train(
    facts: dict[str, Any], backend: Backend | None, recompute: bool = False
) -> tuple[Tensor, list[Any]]:
    """Make three updates of two batches each; return the weights and what each update said."""
    torch.compiler.reset()
    optimiser = setting(rate=0.01)
    learner = Learner(model(facts), CrossEntropyBlueprint().build())
    if backend is not None:
        compile_layers(learner.model, backend)
    state = TrainState(learner, optimiser.build(learner), START)
    how = plan(3, optimiser, accumulate=2)._replace(recompute=recompute)
    updates = list(steps(state, stream(), how))
    return weights(state), [numbers(update)[:4] for update in updates]


@pytest.mark.parametrize(
    ("name", "recompute"),
    [
        ("transformer", False),
        *(
            pytest.param(name, recompute, marks=pytest.mark.slow)
            for name in ("transformer", "windowed", "segments", "convolutional")
            for recompute in (False, True)
            if recompute or name != "transformer"
        ),
    ],
)
def test_the_same_is_learned(name: str, recompute: bool) -> None:
    """With graphs that are taken down and run as they stand, which takes no C++ compiler."""
    graphs: list[fx.GraphModule] = []

    def noted(graph: fx.GraphModule, given: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    plain, losses = train(MODELS[name], None)
    found, same = train(MODELS[name], noted, recompute)
    assert len(graphs) > 2
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.tensor(same), torch.tensor(losses))


@pytest.mark.slow
def test_a_run_is_compiled_by_the_compiler_of_this_machine(data: Path) -> None:
    """The setting of an experiment; validations are compiled as well."""
    layers = {"kind": "transformer", "width": 8, "heads": 2, "inner": 16, "layers": 1}
    changes = [f"model.encoder={layers}", f"model.decoder={layers}", "train.precision=fp32"]
    plain = losses(run(data, "plain", *changes))
    torch.compiler.reset()
    assert losses(run(data, "compiled", *changes, "train.compile=true")) == pytest.approx(plain)


def losses(run: Path) -> list[float]:
    lines = (run / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [found["loss"] for line in lines if "loss" in (found := json.loads(line))]


def test_a_model_without_such_layers_is_refused() -> None:
    recurrent = model({"encoder": RECURRENT, "decoder": RECURRENT})
    with pytest.raises(Problem, match="only layers of a Transformer or of convolutions"):
        compile_layers(recurrent)


def test_the_setting_reaches_the_model_of_a_run(data: Path) -> None:
    with pytest.raises(Problem, match=r"train\.compile: only layers"):
        run(data, "recurrent", "train.compile=true")


def test_who_cannot_compile_is_told_why() -> None:
    def broken(graph: fx.GraphModule, given: list[Tensor]) -> Callable[..., Any]:
        raise RuntimeError("no compiler\nof that kind")

    torch.compiler.reset()
    with pytest.raises(Problem, match=r"cannot compile here \(.*\); install a C\+\+ compiler"):
        compile_layers(model({"encoder": CONVOLUTIONAL, "decoder": CONVOLUTIONAL}), broken)
