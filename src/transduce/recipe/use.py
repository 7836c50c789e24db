"""What is done with a trained model: lines in, lines out; scores; a check of its files."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO

import numpy as np
from pydantic import Field

from transduce import folder
from transduce.bayes_risk import Weights, least_risk
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
from transduce.evaluate import evaluate as score_texts
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe.init import corpus
from transduce.result import Result
from transduce.search.constrain import ConstraintBlueprint, read_own
from transduce.search.ensemble import Average
from transduce.search.interface import SearchBlueprint
from transduce.search.length import Length
from transduce.train.progress import Show
from transduce.transducer import Transducer

BOOTSTRAP = 1000  # resamples behind a confidence interval


class EnsembleBlueprint(Blueprint):
    """Models that are asked together with the one that is named first."""

    runs: tuple[str, ...] = Field(min_length=1)
    """folders of runs or of models; each reads the source in its own way"""
    average: Average = "probabilities"
    """the mean of what: of the models' probabilities, or of their logarithms"""


class AskBlueprint(Blueprint):
    """What can be changed about who is asked."""

    ensemble: EnsembleBlueprint | None = None
    """other models to ask as well; null for none"""

    def joined(self, model: Transducer, parts: Sequence[Path]) -> Transducer:
        """Return the model, together with those of the ensemble."""
        if self.ensemble is None:
            return model
        others = [Transducer.load(run, parts=parts) for run in self.ensemble.runs]
        return model.ensemble(others, self.ensemble.average)


class RiskBlueprint(Blueprint):
    """Minimum Bayes risk: the candidate that is expected to be best."""

    metric: MetricBlueprint = ChrfBlueprint()
    """what is good"""
    candidates: Annotated[int, Field(ge=2)] = 16
    """answers of the search to choose from; their number squared are compared"""
    weights: Weights = "posterior"
    """how likely a candidate is to be right: as the model says, or (samples) as often as drawn"""


class PredictBlueprint(AskBlueprint):
    """What can be changed about prediction."""

    search: SearchBlueprint
    """how to look for the answer"""
    length: Length
    """how long answers may be"""
    constraints: tuple[ConstraintBlueprint, ...]
    """what the answer has to obey"""
    own: str | None = None
    """file with what each line has to obey besides: a JSON object for each, or a blank line"""
    risk: RiskBlueprint | None = None
    """choose among several answers by a metric; null takes the best of the search"""

    def answers(
        self, model: Transducer, lines: Iterable[str], best: int = 1, ahead: int = 4096
    ) -> Iterator[Result]:
        """Yield the answer to each line, with the next best until there are ``best``.

        Raises:
            Problem: more are wanted than there are candidates, the search finds one answer only, or
                a line of the file ``own`` is faulty.
        """
        own = None if self.own is None else read_own(Path(self.own))
        if self.risk is None:
            yield from model.predict(
                lines, self.search, own=own, alternatives=best - 1, ahead=ahead
            )
            return
        count = self.risk.candidates
        if best > count:
            raise Problem(f"{best} answers are wanted of {count}; raise it", "risk.candidates")
        metric = self.risk.metric.build()
        for result in model.predict(
            lines, self.search, own=own, alternatives=count - 1, ahead=ahead
        ):
            yield least_risk(result, metric, self.risk.weights)


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
    which answers the length limit cut off, which constraints left blank, and for which the budget
    of exact search was too small.

    Raises:
        Problem: there is no sound model, or a change such as ``search.width=8`` is no right one.
    """
    model, setting = _asked(run, changes, parts)
    results = setting.answers(model, lines, best, ahead)
    cut, none, unproven = list[int](), list[int](), list[int]()
    for number, result in enumerate(results, 1):
        if not result.finished:
            (cut if result.tokens else none).append(number)
        if result.bound is not None and not result.proven:
            unproven.append(number)
        for answer in (result, *result.alternatives[: best - 1]):
            yield _row(answer, number if best > 1 else None, scores)
    bound = setting.constraints or setting.own
    stuck = " or were left nothing to go on with by the constraints" if bound else ""
    _warn(cut, f"reached the length limit{stuck}", show)
    _warn(none, "are blank: the constraints allow none (within the length limit)", show)
    _warn(unproven, "are not proven to be the best", show)


def stream(
    run: Path,
    lines: Iterable[str],
    changes: Sequence[str] = (),
    *,
    parts: Sequence[Path] = (),
    show: Show,
) -> Iterator[str]:
    """Yield one line for each line, in order, bit by bit as answers grow; else as ``predict``."""
    model, setting = _asked(run, changes, parts)
    if setting.risk is not None:
        raise Problem("it compares whole answers, which cannot be shown as they grow", "risk")
    if setting.own is not None:
        raise Problem("what each line has to obey is a matter of predict", "own")
    cut: list[int] = []
    for number, line in enumerate(lines, 1):
        finished = yield from _on_one_line(model.stream(line, setting.search))
        if not finished:
            cut.append(number)
        yield "\n"
    _warn(cut, "reached the length limit", show)


def _on_one_line(bits: Generator[str, None, bool]) -> Generator[str, None, bool]:
    while True:
        try:
            bit = next(bits)
        except StopIteration as end:
            return bool(end.value)
        yield _one_line(bit)


def _one_line(text: str) -> str:
    return text.replace("\n", " ")  # a line stays a line


def _asked(
    run: Path, changes: Sequence[str], parts: Sequence[Path]
) -> tuple[Transducer, PredictBlueprint]:
    """Load a model, and others to ask as well; change how they answer."""
    model = Transducer.load(run, parts=parts)
    own = PredictBlueprint(search=model.search, length=model.length, constraints=model.constraints)
    setting = override(own, changes)
    model = setting.joined(model, parts)
    model.length, model.constraints = setting.length, setting.constraints
    return model, setting


def _warn(numbers: Sequence[int], what: str, show: Show) -> None:
    if numbers:
        show.say(f"warning: {len(numbers)} answers {what}: lines {_places(numbers)}")


def _places(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if numbers[10:] else "")


def _row(answer: Result, number: int | None, scores: bool) -> str:
    text = _one_line(answer.text)
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
    setting = EvaluateBlueprint(
        search=model.search, length=model.length, constraints=model.constraints
    )
    if (run / "experiment.yaml").exists():
        metrics = read(run / "experiment.yaml", Experiment).metrics
        setting = setting.model_copy(update={"metrics": metrics})
    setting = override(setting, changes)
    model = setting.joined(model, parts)
    model.length, model.constraints = setting.length, setting.constraints
    base = Path.cwd()
    grouped = corpus(data, base).model_copy(update={"group": True})
    examples = list(grouped.read(base, Skipped()))
    built = [metric.build() for metric in setting.metrics]
    sources = (example.sources["source"] for example in examples)
    texts = [result.text for result in setting.answers(model, sources)]
    scores = score_texts(built, texts, [example.references for example in examples], BOOTSTRAP)
    return [*scores, _perplexity(model, examples)]


def _perplexity(model: Transducer, examples: Sequence[Example]) -> Score:
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
