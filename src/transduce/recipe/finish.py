"""The end of a run: choose the weights, score the test set, write model folder and report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from transduce import folder, report
from transduce.evaluate import Score
from transduce.problem import Problem
from transduce.recipe.perplexity import perplexity
from transduce.recipe.run import Run
from transduce.recipe.validate import predict_and_score, spread
from transduce.train import checkpoint

ATTENTION_MAPS = 4  # dev examples whose attention is drawn in the report
LONGEST_DRAWN = 2000  # symbols of their sources; a map has no room for more


def finish(run: Run) -> Path:
    """Do all that; return where the report is."""
    weights, origin = choose(run)
    checkpoint.load_tensors(run.bundle.model, weights, run.checkpoints)
    scores = test(run)
    run.save_model(weights, scores, origin)
    draw_attention(run)
    return report.write(run.folder)


def choose(run: Run) -> tuple[dict[str, Tensor], str]:
    """Return the best weights, or the mean of the kept ones if that is better on dev."""
    kept = [(quality, step) for quality, step in run.best.kept if _sound(run, step)]
    if not kept:
        return run.weights(), f"step {run.state.step}"
    best, first = kept[0]
    paths = [run.checkpoints / checkpoint.name(step) for _, step in kept]
    alone = checkpoint.average(paths[:1]), f"step {first}"
    if not run.experiment.validation.average or len(paths) < 2:
        return alone
    mean = checkpoint.average(paths)
    checkpoint.load_tensors(run.bundle.model, mean, run.checkpoints)
    better = run.measure().quality > best
    verdict = "better than" if better else "no better than"
    run.show.say(f"the mean of the {len(paths)} kept checkpoints is {verdict} the best of them")
    steps = ", ".join(str(step) for step in sorted(step for _, step in kept))
    return (mean, f"the mean of steps {steps}") if better else alone


def _sound(run: Run, step: int) -> bool:
    """Whether a kept checkpoint is undamaged; say so if it is not."""
    try:
        folder.verify(run.checkpoints / checkpoint.name(step))
    except Problem as problem:
        run.show.say(f"warning: {problem}; going on without this checkpoint")
        return False
    return True


def test(run: Run) -> list[Score]:
    """Score the test set with the search of the experiment; write predictions and scores."""
    if not run.prepared.test:
        return []
    experiment = run.experiment
    if experiment.model.encoder.reads:
        names = run.names
        texts, scores = predict_and_score(
            run.transducer, run.prepared.test, run.metrics, experiment.search, bootstrap=1000
        )
        folder.write_text(run.folder / "test.predictions.txt", "".join(map(_line, texts)))
    else:
        names, scores = ["perplexity"], [perplexity(run.transducer, run.prepared.test)]
    named = {name: asdict(score) for name, score in zip(names, scores, strict=True)}
    published = [other.model_dump() for other in experiment.published]
    folder.write_json(run.folder / "scores.json", {"test": named, "published": published})
    for score in scores:
        run.show.say(f"test: {score}")
    for other in experiment.published:
        run.show.say(f"published: {other.metric} {other.value} ({other.name})")
    return scores


def _line(text: str) -> str:
    return text.replace("\n", " ") + "\n"


def draw_attention(run: Run, longest: int = LONGEST_DRAWN) -> None:
    """Write where the model looked in a few dev examples with no longer sources."""
    store, dev = run.prepared.dev_store, run.prepared.dev
    fitting = np.flatnonzero(store.lengths(store.starts())[0] <= longest)
    if not len(fitting):
        run.show.say(f"no source of dev has {longest} symbols or fewer: no attention is drawn")
    places = fitting[spread(len(fitting), ATTENTION_MAPS)]
    sources = [dev[place].sources["source"] for place in places]
    maps = [
        {
            "source": list(result.source_pieces),
            "target": [token.piece for token in result.tokens],
            "weights": result.attention.round(4).tolist(),
        }
        for result in run.transducer(sources, attention=True)
        if result.attention is not None
    ]
    folder.write_json(run.folder / "attention.json", maps)
