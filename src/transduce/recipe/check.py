"""Looking at an experiment before it is trained: all is read, only the vocabulary is learned."""

from __future__ import annotations

from pathlib import Path

from transduce.data.batch import Example
from transduce.experiment import Experiment
from transduce.models.build import build
from transduce.recipe.prepare import Prepared, prepare
from transduce.train.progress import Show


def check(experiment: Experiment, base: Path, show: Show) -> str:
    """Read and encode all data, build the model, and return what was found.

    Raises:
        Problem: whatever would stop a training run at its start.
    """
    prepared = prepare(experiment, base, None, show)
    sizes = {name: codec.size for name, codec in prepared.codecs.items()}
    model = build(experiment.model, sizes)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    steps = experiment.train.max_steps
    tokens = int(prepared.counts["train"]["target_tokens"])
    batch = experiment.train.batch.tokens * experiment.train.accumulate
    lines = [_corpus(name, prepared) for name in ("train", "dev", "test")]
    lines += [
        f"vocabulary: source {sizes['source']:,}, target {sizes['target']:,} symbols",
        f"model: {parameters / 1e6:.2f} M parameters",
        f"training: {steps:,} updates of up to {batch:,} tokens, about "
        f"{steps * batch / max(tokens, 1):.1f} epochs",
        *_warnings(prepared),
        "nothing stands in the way of training",
    ]
    return "\n".join(line for line in lines if line)


def _corpus(name: str, prepared: Prepared) -> str:
    facts = dict(prepared.counts.get(name, {}))
    if not facts:
        return ""
    examples = facts.pop("examples")
    skipped = facts.pop("skipped")
    facts.pop("fingerprint", None)
    shown = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in facts.items())
    left_out = f"; {skipped:,} left out" if skipped else ""
    return f"{name}: {examples:,} examples{f' ({shown})' if shown else ''}{left_out}"


def _warnings(prepared: Prepared) -> list[str]:
    """Return what will not stop training but may spoil the result."""
    found = []
    dev = {_pair(example) for example in prepared.dev}
    both = sum(_pair(example) in dev for example in prepared.test)
    if both:
        found.append(f"warning: {both} test examples are also in dev; the test score will flatter")
    for side in ("source", "target"):
        facts = prepared.counts["dev"]
        unknown, tokens = facts[f"unknown_{side}"], facts[f"{side}_tokens"]
        if unknown > tokens / 50:
            found.append(
                f"warning: {unknown / tokens:.1%} of the {side} symbols in dev are unknown; use "
                f"sentencepiece or bytes, or byte_fallback: true, in text.{side}.tokens"
            )
    return found


def _pair(example: Example) -> tuple[str, tuple[str, ...]]:
    return example.sources["source"], tuple(sorted(example.references))
