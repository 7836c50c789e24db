"""What is done with a trained model: lines in, lines out; scores; a check of its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import Field

from transduce import folder
from transduce.blueprint import Blueprint, override, read
from transduce.bundle import is_bundle
from transduce.data.batch import Example
from transduce.data.lines import Skipped, read_lines
from transduce.evaluate import (
    BleuBlueprint,
    ChrfBlueprint,
    MetricBlueprint,
    Score,
    perplexity_score,
)
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe.init import corpus
from transduce.recipe.validate import predict_and_score
from transduce.search.constrain import ConstraintBlueprint
from transduce.search.interface import SearchBlueprint
from transduce.train.progress import Show
from transduce.transducer import Result, Transducer

BOOTSTRAP = 1000  # resamples behind a confidence interval


class PredictBlueprint(Blueprint):
    """What can be changed about prediction."""

    search: SearchBlueprint
    """how to look for the answer"""
    constraints: tuple[ConstraintBlueprint, ...] = ()
    """what the answer has to obey"""


class EvaluateBlueprint(PredictBlueprint):
    """What can be changed about evaluation."""

    metrics: tuple[MetricBlueprint, ...] = Field((BleuBlueprint(), ChrfBlueprint()), min_length=1)
    """what to score with"""


def predict(
    run: Path,
    lines: Iterable[str],
    changes: Sequence[str] = (),
    *,
    parts: Sequence[Path] = (),
    best: int = 1,
    scores: bool = False,
    ahead: int = 4096,
    show: Show,
) -> Iterator[str]:
    """Yield one line for each line, in order; ``ahead`` lines are read, then answered.

    ``parts`` are files of the user's own that define parts of the model. With ``scores`` the score
    and a tab stand before the text. With ``best`` above 1 there are up to that many answers, a line
    each, behind the number of the line that they answer and a tab. At the end ``show`` is told
    which answers the length limit cut off.

    Raises:
        Problem: there is no sound model, or a change such as ``search.width=8`` is no right one.
    """
    model = Transducer.load(run, parts=parts)
    own = PredictBlueprint(search=model.search, constraints=model.constraints)
    setting = override(own, changes)
    results = model.predict(
        lines,
        setting.search,
        constraints=setting.constraints,
        alternatives=best - 1,
        ahead=ahead,
    )
    cut: list[int] = []
    none: list[int] = []
    for number, result in enumerate(results, 1):
        if not result.finished:
            (cut if result.tokens else none).append(number)
        for answer in (result, *result.alternatives[: best - 1]):
            yield _row(answer, number if best > 1 else None, scores)
    if cut:
        stuck = " or were left nothing to go on with by the constraints"
        why = f"reached the length limit{stuck if setting.constraints else ''}"
        show.say(f"warning: {len(cut)} answers {why}: {_places(cut)}")
    if none:
        why = "the constraints allow no answer (within the length limit)"
        show.say(f"warning: {why}: {_places(none)}")


def _places(numbers: Sequence[int]) -> str:
    return f"lines {', '.join(map(str, numbers[:10]))}{', ...' if numbers[10:] else ''}"


def _row(answer: Result, number: int | None, scores: bool) -> str:
    text = answer.text.replace("\n", " ")  # a line stays a line
    columns = [f"{number}"] if number else []
    columns += [f"{answer.score:.4f}"] if scores else []
    return "\t".join([*columns, text])


def texts_of(source: BinaryIO | Path) -> Iterator[str]:
    """Yield the lines of a file or of a stream such as standard input.

    Raises:
        Problem: they are not UTF-8.
    """
    if isinstance(source, Path):
        for line in read_lines(source):
            if line.fault:
                raise line.fault.problem()
            yield line.text
        return
    for number, content in enumerate(source, 1):
        try:
            yield content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Problem(
                "not UTF-8; convert it, for instance by iconv", f"stdin:{number}"
            ) from None


def evaluate(
    run: Path, data: Sequence[Path], changes: Sequence[str] = (), parts: Sequence[Path] = ()
) -> list[Score]:
    """Score a model on a table or on two parallel files; rows with the same source are references.

    The metrics are those of the run, or BLEU and chrF for a model without its run; perplexity is
    always added. ``parts`` are files of the user's own that define parts of the model or metrics.

    Raises:
        Problem: there is no sound model, the data is faulty, or a change is no right one.
    """
    model = Transducer.load(run, parts=parts)
    setting = EvaluateBlueprint(search=model.search, constraints=model.constraints)
    if (run / "experiment.yaml").exists():
        metrics = read(run / "experiment.yaml", Experiment).metrics
        setting = setting.model_copy(update={"metrics": metrics})
    setting = override(setting, changes)
    base = Path.cwd()
    grouped = corpus(data, base).model_copy(update={"group": True})
    examples = list(grouped.read(base, Skipped()))
    built = [metric.build() for metric in setting.metrics]
    scores = predict_and_score(
        model, examples, built, setting.search, BOOTSTRAP, setting.constraints
    )[1]
    return [*scores, _perplexity(model, examples)]


def _perplexity(model: Transducer, examples: Sequence[Example]) -> Score:
    """Return the perplexity of all references, an example's together as one segment."""
    pairs = [
        (example.sources["source"], text) for example in examples for text in example.references
    ]
    forced = iter(model.force(*zip(*pairs, strict=True)))
    segments = [
        [token.log_prob for tokens in islice(forced, len(example.references)) for token in tokens]
        for example in examples
    ]
    nll = np.array([-sum(segment) for segment in segments])
    tokens = np.array([len(segment) for segment in segments])
    unit = f"{model.target.blueprint.tokens.kind} {model.target.size}"
    return perplexity_score(nll, tokens, unit, BOOTSTRAP)


def verify(path: Path) -> str:
    """Check the files of a model, or of all that a run has saved, against their checksums.

    Raises:
        Problem: a file is damaged or missing, or there is no model.
    """
    folders = {manifest.parent for manifest in path.rglob(folder.MANIFEST)}
    folders |= {inner for inner in (path, path / "model") if is_bundle(inner)}
    if not folders:
        raise Problem("there is no model here; name the folder of a run or of a model", str(path))
    for inner in sorted(folders):
        folder.verify(inner)
    count = sum(len(folder.read_json(inner / folder.MANIFEST)["files"]) for inner in folders)
    return f"all {count} files in {len(folders)} folders are as they were written"
