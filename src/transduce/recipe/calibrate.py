"""Confidences that can be believed: the temperature that fits them, and how far they are off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import Field

from transduce import folder
from transduce.blueprint import Blueprint, read
from transduce.bundle import BLUEPRINT, CARD, WEIGHTS, BundleBlueprint, is_bundle, read_weights
from transduce.confidence import LEAST, confident, distributions, tempered
from transduce.data.batch import Example
from transduce.evaluate import Score
from transduce.evaluate.calibration import BINS, calibration_score
from transduce.recipe.perplexity import held_out
from transduce.result import Result
from transduce.transducer import Transducer

PASSES: Final = 12  # over the data, at most; Newton's method needs about five
HOTTEST: Final = 20.0  # and 1 / HOTTEST is the coldest
ENOUGH: Final = 1e-4  # change of the temperature, of 1, that ends the search


class CalibrationBlueprint(Blueprint):
    """Expected calibration error beside the other scores (Guo 2017)."""

    bins: int = Field(BINS, ge=2)
    """bins of equal width that confidences are sorted into"""

    def scores(
        self, model: Transducer, examples: Sequence[Example], answers: Iterable[Result]
    ) -> list[Score]:
        """Return the errors of next tokens behind references, and of whole answers.

        An answer is right if it is a reference, and its confidence the product of its tokens'.
        """
        found = confident(model, [replace(answer, alternatives=()) for answer in answers])
        sure = [np.array([result.confidence or 0.0]) for result in found]
        right = [
            np.array([result.finished and result.text in example.references])
            for result, example in zip(found, examples, strict=True)
        ]
        whole = calibration_score("answer", sure, right, model.temperature, self.bins)
        return [self.of_tokens(model, examples), whole]

    def of_tokens(self, model: Transducer, examples: Sequence[Example]) -> Score:
        """Return the error of the likeliest token at each place of the references.

        It is right if it stands there, and a reference is a segment.
        """
        sure, right = [], []
        for log_probs, symbols in _references(model, examples):
            calibrated = tempered(log_probs, model.temperature)
            values, likeliest = calibrated.max(-1)
            sure.append(values.exp().numpy())
            right.append((likeliest == symbols).numpy())
        return calibration_score("token", sure, right, model.temperature, self.bins)


def calibrate(run: Path, data: Sequence[Path], parts: Sequence[Path] = ()) -> str:
    """Find the temperature that fits held-out data best, keep it with the model; say how it did.

    ``parts`` are files of the user's own that define parts of the model. Weights, searches and
    scores stay what they are.

    Raises:
        Problem: there is no sound model, or the data is faulty.
    """
    model = Transducer.load(run, parts=parts)
    examples = held_out(model, data)
    model.temperature = 1.0
    before = CalibrationBlueprint().of_tokens(model, examples)
    model.temperature = fit(model, examples)
    after = CalibrationBlueprint().of_tokens(model, examples)
    path = run if is_bundle(run) else run / "model"
    adapted = model.bundle.addendum is not None  # its settings are those of two folders
    blueprint = model.bundle.blueprint if adapted else read(path / BLUEPRINT, BundleBlueprint)
    blueprint = blueprint.model_copy(update={"temperature": model.temperature})
    card = (path / CARD).read_text(encoding="utf-8")
    weights = read_weights(path / WEIGHTS)
    replace(model.bundle, blueprint=blueprint).save(path, weights, card)
    folder.verify(path)
    return f"temperature {model.temperature:.4f}, kept in {path}\nbefore: {before}\nafter:  {after}"


@torch.no_grad()
def fit(model: Transducer, examples: Sequence[Example]) -> float:
    """Return the temperature under which the references are likeliest.

    Their negative log-likelihood is convex in the inverse of the temperature, so that Newton's
    method finds the minimum; it stays between 1/20 and 20.
    """
    inverse = 1.0
    for _ in range(PASSES):
        slope = curve = 0.0
        for log_probs, symbols in _references(model, examples):
            said = log_probs.clamp(min=LEAST).double()
            chance = (said * inverse).softmax(-1)
            mean = (chance * said).sum(-1, keepdim=True)
            slope += float((mean - said.gather(1, symbols[:, None])).sum())
            curve += float((chance * (said - mean).square()).sum())
        aim = inverse - slope / max(curve, 1e-12)
        near = min(max(aim, inverse / 2), inverse * 2)
        after = min(max(near, 1 / HOTTEST), HOTTEST)
        if abs(after - inverse) < ENOUGH * inverse:
            return 1 / after
        inverse = after
    return 1 / inverse


def _references(
    model: Transducer, examples: Sequence[Example]
) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Yield what may stand at each place of each reference, and what does."""
    pairs = [
        (example.place, example.sources["source"], text)
        for example in examples
        for text in example.references
    ]
    symbols = [model.panel.read("target", place, text, source)[0] for place, source, text in pairs]
    for row, log_probs in distributions(model, [source for _, source, _ in pairs], symbols):
        yield log_probs, torch.tensor(symbols[row])
