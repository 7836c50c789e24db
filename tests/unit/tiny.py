"""Trained-looking models that are made in a moment, for the tests of what stands on models."""

from __future__ import annotations

from typing import Any, Final

import torch

from transduce.bundle import Bundle, BundleBlueprint
from transduce.text.codec import TextBlueprint, learn_codecs
from transduce.text.vocabulary import EOS
from transduce.transducer import Transducer

SOURCES: Final = ["abc", "bcd", "dab", "a cab", "ä <b> &"]
TARGETS: Final = ["cba", "dcb", "bad", "baca", "&<b>ä"]
RECURRENT: Final = {"kind": "recurrent", "embedding": 8, "width": 8}
TRANSFORMER: Final = {"kind": "transformer", "width": 8, "layers": 2, "heads": 2, "inner": 12}
MODELS: Final[dict[str, dict[str, Any]]] = {
    "recurrent": {"encoder": RECURRENT, "decoder": RECURRENT},
    "transformer": {"encoder": TRANSFORMER, "decoder": TRANSFORMER},
    "mixed": {"encoder": TRANSFORMER, "decoder": RECURRENT},
}
STEPWISE: Final = {
    "encoder": RECURRENT | {"normalised": True, "layers": 2, "residual": True},
    "decoder": RECURRENT
    | {"input_feeding": True, "order": "before", "connection": "coverage", "bottleneck": 4},
}
FIXED: Final = {"encoder": RECURRENT, "decoder": RECURRENT | {"connection": "fixed"}}


def bundle(
    model: dict[str, Any],
    *,
    search: dict[str, Any] | str = "beam",
    joint: bool = False,
    longest: tuple[float, int] = (1.0, 10),
) -> Bundle:
    """Make a random model that is sure of itself and says nothing but text."""
    text = TextBlueprint.model_validate({"source": {"tokens": "characters"}, "joint": joint})
    codecs = learn_codecs(text, SOURCES, TARGETS)
    facts = {"model": model, "search": search, "joint": joint, "longest": longest}
    torch.manual_seed(0)
    made = Bundle.make(BundleBlueprint.model_validate(facts), codecs)
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
        bias = made.model.head.get_parameter("bias")
        bias[:EOS] = -100.0  # what is unknown or begins is no text
        bias[EOS] = -1.0
    return made


def transducer(model: dict[str, Any], *, search: dict[str, Any] | str = "beam") -> Transducer:
    """Make one that is ready to be called."""
    return Transducer(bundle(model, search=search), torch.device("cpu"))
