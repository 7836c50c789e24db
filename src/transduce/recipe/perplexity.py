"""Perplexity of a model on given texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from transduce.data.batch import Example
from transduce.data.lines import Skipped
from transduce.data.monolingual import MonolingualBlueprint
from transduce.evaluate import Score, perplexity_score
from transduce.problem import Problem
from transduce.recipe.init import corpus
from transduce.transducer import Transducer

BOOTSTRAP = 1000  # resamples behind a confidence interval


def perplexity(model: Transducer, examples: Sequence[Example]) -> Score:
    """Return the perplexity of all references, an example's together as one segment."""
    pairs = [
        (example.sources["source"], text) for example in examples for text in example.references
    ]
    sources, targets = zip(*pairs, strict=True)
    forced = iter(model.force(sources, targets))
    segments = [
        [token.log_prob for tokens in islice(forced, len(example.references)) for token in tokens]
        for example in examples
    ]
    nll = np.array([-sum(segment) for segment in segments])
    tokens = np.array([len(segment) for segment in segments])
    unit = f"{model.target.blueprint.tokens.kind} {model.target.size}"
    return perplexity_score(nll, tokens, unit, BOOTSTRAP)


def held_out(model: Transducer, data: Sequence[Path]) -> list[Example]:
    """Read a table or two parallel files, or for a language model one text file.

    Rows with the same source are one example with several references.

    Raises:
        Problem: there are several files for a language model, or the data is faulty.
    """
    base = Path.cwd()
    if model.panel.reads:
        grouped = corpus(data, base).model_copy(update={"group": True})
        return list(grouped.read(base, Skipped()))
    if len(data) > 1:
        raise Problem("a language model reads no sources; give one text file", "--data")
    return list(MonolingualBlueprint(path=str(data[0])).read(base, Skipped()))
