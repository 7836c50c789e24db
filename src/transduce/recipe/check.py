"""Looking at an experiment before it is trained: all is read, only the vocabulary is learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from transduce.data.batch import Example
from transduce.data.lines import Skipped
from transduce.data.stream import batches
from transduce.evaluate import evaluate
from transduce.experiment import Experiment
from transduce.recipe.fit import check_lengths
from transduce.recipe.prepare import Prepared, device, prepare
from transduce.recipe.start import begin, resolve
from transduce.recipe.task import task, untrained
from transduce.train.objective import Learner, Moment
from transduce.train.optimise import freeze
from transduce.train.progress import Show
from transduce.train.track import tensorboard
from transduce.transducer import Transducer

SCORED = 100  # dev examples that the metrics are tried on
TRIED = 8  # examples of the first batch that the objective is tried on


def check(experiment: Experiment, base: Path, show: Show) -> str:
    """Read and encode all data, build the model, and return what was found.

    Raises:
        Problem: whatever would stop a training run at its start.
    """
    experiment = resolve(experiment, base)
    device(experiment.train.device)
    if experiment.train.tensorboard:
        tensorboard()
    metrics = [metric.build() for metric in experiment.metrics]
    prepared = prepare(experiment, base, None, show)
    scored = prepared.dev[:SCORED]
    evaluate(metrics, [e.references[0] for e in scored], [e.references for e in scored])
    sizes = {name: codec.size for name, codec in prepared.codecs.items()}
    bundle = untrained(experiment, prepared)
    model = bundle.model
    begun = begin(model, prepared.codecs, experiment, None)
    check_lengths(model.longest, prepared)
    freeze(model, experiment.train.optimiser.frozen)
    _try(experiment, prepared, Transducer(bundle, torch.device("cpu")))
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
        *begun,
        *_leaks(experiment, base, prepared),
        *_unknown(prepared),
        "nothing stands in the way of training",
    ]
    return "\n".join(line for line in lines if line)


@torch.no_grad()
def _try(experiment: Experiment, prepared: Prepared, model: Transducer) -> None:
    """Compute the first loss and the last, as objectives may ask for what is not there."""
    setting, store = experiment.train, prepared.train
    learner = Learner(model.model, setting.objective.build(task(model, store))).train()
    _, batch = next(batches(store, setting.batch, experiment.seed))
    some = batch.take(torch.arange(len(batch))[:TRIED])
    for step in (0, setting.max_steps - 1):
        learner(some, Moment(step, experiment.seed))


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


def _leaks(experiment: Experiment, base: Path, prepared: Prepared) -> Iterator[str]:
    """Yield a warning for every two sets that share examples."""
    dev, test = (
        {pair for e in held for pair in _pairs(e)} for held in (prepared.dev, prepared.test)
    )
    train = experiment.data.train.read(base, Skipped())
    both = {pair for e in train for pair in _pairs(e) if pair in dev or pair in test}
    for name, examples, other, known in (
        ("dev", prepared.dev, "train", both),
        ("test", prepared.test, "train", both),
        ("test", prepared.test, "dev", dev),
    ):
        count = sum(not known.isdisjoint(_pairs(example)) for example in examples)
        if count:
            flatters = f"the {name} score will flatter"
            yield f"warning: {count} {name} examples are also in {other}; {flatters}"


def _pairs(example: Example) -> list[tuple[str, str]]:
    return [(example.sources["source"], reference) for reference in example.references]


def _unknown(prepared: Prepared) -> Iterator[str]:
    """Yield a warning for a side with many unknown symbols."""
    facts = prepared.counts["dev"]
    for side in ("source", "target"):
        unknown, tokens = facts[f"unknown_{side}"], facts[f"{side}_tokens"]
        if unknown > tokens / 50:
            yield (
                f"warning: {unknown / tokens:.1%} of the {side} symbols in dev are unknown; use "
                f"sentencepiece or bytes, or byte_fallback: true, in text.{side}.tokens"
            )
