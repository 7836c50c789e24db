"""Finding the first layer of a model that puts out what is not a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transduce.nn.tap import Tap
from transduce.train.objective import Learner
from transduce.tree import leaves


def first_fault(learner: Learner, compute: Callable[[], object]) -> str | None:
    """Return what is not finite first while ``compute`` makes a gradient; None if all is.

    Looked at are the weights, then in order of time what each module puts out, the loss, and the
    gradients on their way back. Minus infinity is no fault of an output: it says "never".
    """
    for name, parameter in learner.model.named_parameters():
        if not parameter.isfinite().all():
            return f"the weight {name}, before anything was computed"
    with _watching(learner) as found:
        compute()
    return found[0] if found else None


@contextmanager
def _watching(learner: Learner) -> Iterator[list[str]]:
    """Note all that is not finite, in order of time."""
    found: list[str] = []

    def check(value: Tensor, name: str) -> None:
        if not value.isfinite().all():
            found.append(f"the gradient {name}")

    def look(name: str, out: object) -> None:
        for value in _floats(out):
            if value.isnan().any() or value.isposinf().any():
                found.append(name)
            if value.requires_grad:
                _hook(value, lambda gradient: check(gradient, f"that comes to {name}"))

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, out: look(name, out)

    hooks = [learner.register_forward_hook(watch("the loss"))]
    for name, part in learner.model.named_modules():
        if name and not isinstance(part, Tap):  # a tap that is watched changes the computation
            label = f"what {name} ({type(part).__name__}) puts out"
            hooks.append(part.register_forward_hook(watch(label)))
    for name, parameter in learner.model.named_parameters():
        if parameter.requires_grad:
            hooks.append(_hook(parameter, partial(check, name=f"of {name}")))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _hook(tensor: Tensor, look: Callable[[Tensor], None]) -> RemovableHandle:
    """Let ``look`` see the gradient of a tensor."""
    handle: RemovableHandle = tensor.register_hook(look)  # type: ignore[no-untyped-call]
    return handle


def _floats(out: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors of what a module puts out."""
    try:
        found = [leaf for leaf, _ in leaves(out)]
    except TypeError:  # it holds what is no tensor
        return
    yield from (leaf for leaf in found if torch.is_floating_point(leaf))
