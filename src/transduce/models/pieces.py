"""What a model is made of, by the names of its parameters: its parts, and how deep each lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

from torch import nn

Piece = Literal["encoder", "decoder", "head", "source_table", "target_table"]

PREFIXES: Final[dict[Piece, str]] = {
    "encoder": "encoders.",
    "decoder": "decoder.",
    "head": "head.",
    "source_table": "encoders.source.embedding.",
    "target_table": "decoder.embedding.",
}
LAYER: Final = re.compile(r"\.(?:layers|forwards|backwards|outlets)\.(\d+)\.")
INPUT: Final = re.compile(r"\.(?:embedding|positions|place)\.")


def belongs(name: str, piece: Piece) -> bool:
    """Return whether a parameter of that name is of the piece."""
    return name.startswith(PREFIXES[piece])


def parameters(model: nn.Module) -> Iterator[tuple[list[str], nn.Parameter]]:
    """Yield each parameter with all of its names."""
    names: dict[int, tuple[list[str], nn.Parameter]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), ([], parameter))[0].append(name)
    yield from names.values()


def depths(model: nn.Module) -> dict[str, int]:
    """Return how many layers lie between each parameter and the scores.

    The head and the decoder's last layer are at 0, its first layer is followed by its table, then
    come the encoder's last layer and so on. What is in no layer is with the last one of its part,
    but for what the first one reads.
    """
    found: dict[str, int] = {}
    top = 0
    names = [name for name, _ in model.named_parameters()]
    for prefix in ("head.", "decoder.", "encoders."):
        own = [name for name in names if name.startswith(prefix)]
        layers = sorted({layer for name in own if (layer := _layer(name))}, reverse=True)
        bottom = top + max(1, len(layers))
        for name in own:
            if layer := _layer(name):
                found[name] = top + layers.index(layer)
            else:
                found[name] = bottom if INPUT.search(name) else top
        if prefix != "head.":
            top = bottom + 1
    return {name: found.get(name, 0) for name in names}


def _layer(name: str) -> tuple[bool, int] | None:
    """Return what orders layers: a reader's (recurrent ones below others) come before the rest."""
    layer = LAYER.search(name)
    return (".reader." not in name, int(layer[1])) if layer else None
