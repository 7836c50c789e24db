"""Named places where an activation can be read or replaced without the model knowing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn


class Tap(nn.Module):
    """An identity; whoever wants its value hooks it (the idea of TransformerLens' hook points)."""

    def __init__(self, shows: str) -> None:
        super().__init__()
        self.shows = shows

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    @property
    def watched(self) -> bool:
        """Whether anybody listens, so that a kernel that hides the value must not be used."""
        return bool(self._forward_hooks)

    def extra_repr(self) -> str:
        """Say what passes here when a model is printed."""
        return self.shows


@contextmanager
def watch(model: nn.Module, shows: str) -> Iterator[dict[str, list[Tensor]]]:
    """Record what passes the taps that show ``shows``, by the tap's name, in order of the calls."""
    seen: dict[str, list[Tensor]] = {}
    hooks = []
    for name, part in model.named_modules():
        if isinstance(part, Tap) and part.shows == shows:
            seen[name] = []

            def note(_: nn.Module, __: tuple[Tensor], out: Tensor, name: str = name) -> None:
                seen[name].append(out.detach())

            hooks.append(part.register_forward_hook(note))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watching(taps: Sequence[Tap]) -> Iterator[None]:
    """Let these taps be watched within the block, by nobody."""
    with ExitStack() as hooks:
        for tap in taps:
            hooks.callback(tap.register_forward_hook(lambda *_: None).remove)
        yield
