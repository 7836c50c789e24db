"""Changing what encoders and decoder read, at their embeddings, without the model knowing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.models.seq2seq import Seq2Seq

Symbols = Callable[[str, Int[Tensor, "N T"]], Int[Tensor, "N T"]]
Vectors = Callable[[str, Float[Tensor, "N T D"]], Float[Tensor, "N T D"]]

TARGET = "target"


@contextmanager
def reading_instead(
    model: Seq2Seq, symbols: Symbols | None = None, vectors: Vectors | None = None
) -> Iterator[None]:
    """Let other symbols or other vectors be read within the block, in whole sources and targets.

    Both are told the name of the source, or "target". What can be copied stays what it was, and so
    does what a search reads of a target.
    """
    sides: list[str] = []
    parts: dict[str, Any] = {**dict(model.encoders), TARGET: model.decoder}

    def swap(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor] | None:
        return (symbols(sides[-1], given[0]),) if sides and symbols else None

    def move(_: nn.Module, __: tuple[Tensor], found: Tensor) -> Tensor | None:
        return vectors(sides[-1], found) if sides and vectors else None

    with ExitStack() as hooks:
        for side, part in parts.items():
            # one table may serve several sides, so it has to be known who reads

            def enter(_: nn.Module, __: Any, side: str = side) -> None:
                sides.append(side)

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                sides.pop()

            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave).remove)
        # an encoder that reads nothing has no table
        children = (child for part in parts.values() for child in part.named_children())
        for embedding in {child for name, child in children if name == "embedding"}:
            hooks.callback(embedding.register_forward_pre_hook(swap).remove)
            hooks.callback(embedding.register_forward_hook(move).remove)
        yield
