"""Layers that torch compiles: fewer, larger kernels, which is what a GPU wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.train.sharding import STACKS
from transduce.train.shares import is_shared

WHERE = "train.compile"


def compile_layers(model: Seq2Seq, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let each layer be compiled at its first use, for itself and for any lengths.

    By layers, because all of a stack share what was compiled for one, and whole models, with their
    searches and taps, would be cut into pieces.

    Raises:
        Problem: the model has no layers that can be, or shares them with other processes, or torch
            cannot compile here.
    """
    if any(is_shared(parameter) for parameter in model.parameters()):
        what = "layers that processes share out are not compiled; leave it or sharding out"
        raise Problem(what, WHERE)
    stacks = [part for part in model.modules() if isinstance(part, STACKS)]
    if not stacks:
        what = "only layers of a Transformer or of convolutions are compiled; leave it out"
        raise Problem(what, WHERE)
    try:
        torch.compile(lambda x: x * 2 + 1, backend=backend)(next(model.parameters()).detach())
    except Exception as error:  # a missing compiler has many names
        said = str(error).strip().split("\n")[0]
        raise Problem(
            f"torch cannot compile here ({said}); install a C++ compiler, or leave it out", WHERE
        ) from error
    for stack in stacks:
        for layer in stack.layers:
            layer.compile(dynamic=True, backend=backend)
