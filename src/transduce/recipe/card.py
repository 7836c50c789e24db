"""The card in a model folder: what it is, what it learned from, how good it is, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transduce import __version__
from transduce.evaluate import Score
from transduce.experiment import Experiment


def card(
    experiment: Experiment,
    counts: Mapping[str, Mapping[str, Any]],
    scores: Sequence[Score],
    origin: str,
) -> str:
    """Return the card as Markdown."""
    model = experiment.model
    reader = f"A {model.encoder.kind} encoder and" if model.encoder.reads else "A language model:"
    needs = "These weights are added to those of the model that adapter.json names, and need it."
    scored = [f"* {score}" for score in scores] or ["* not scored yet"]
    return "\n".join(
        [
            "# A model made with Transduce",
            "",
            f"{reader} a {model.decoder.kind} decoder, trained on "
            f"{counts['train']['examples']:,} examples (weights: {origin}; transduce "
            f"{__version__}).",
            "",
            *([needs, ""] if experiment.adapt else []),
            "## Scores on the test set",
            "",
            *scored,
            "",
            "## Use",
            "",
            "```python",
            "from transduce import Transducer",
            "",
            'model = Transducer.load("this folder")',
            'print(model("your text"))',
            "```",
            "",
        ]
    )
