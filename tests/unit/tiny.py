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
CONVOLUTIONAL: Final = {"kind": "convolutional", "width": 8, "layers": 2}
MODELS: Final[dict[str, dict[str, Any]]] = {
    "recurrent": {"encoder": RECURRENT, "decoder": RECURRENT},
    "transformer": {"encoder": TRANSFORMER, "decoder": TRANSFORMER},
    "convolutional": {"encoder": CONVOLUTIONAL, "decoder": CONVOLUTIONAL},
    "mixed": {"encoder": TRANSFORMER, "decoder": RECURRENT},
}
COPYING: Final = MODELS["recurrent"] | {"head": "pointer_generator"}
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
    texts: tuple[list[str], list[str]] = (SOURCES, TARGETS),
    reserved: tuple[str, ...] = (),
) -> Bundle:
    """Make a random model that is sure of itself and says nothing but text."""
    cut = {"source": {"tokens": "characters"}, "joint": joint, "reserved": reserved}
    text = TextBlueprint.model_validate(cut)
    codecs = learn_codecs(text, *texts)
    facts = {"model": model, "search": search, "joint": joint, "longest": longest}
    torch.manual_seed(2)  # one of the draws whose models tell texts apart
    made = Bundle.make(BundleBlueprint.model_validate(facts), codecs)
    factor = 1.5 if model["decoder"] == CONVOLUTIONAL else 4  # it has no norm: 4 makes chaos of it
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.mul_(factor if weight.dim() > 1 else 1)
        copies = made.blueprint.model.head.copies
        bias = made.model.head.get_parameter("words.bias" if copies else "bias")
        bias[:EOS] = -100.0  # what is unknown or begins is no text
        bias[EOS] = 0.0
    return made


def transducer(model: dict[str, Any], *, search: dict[str, Any] | str = "beam") -> Transducer:
    """Make one that is ready to be called."""
    return Transducer(bundle(model, search=search), torch.device("cpu"))
