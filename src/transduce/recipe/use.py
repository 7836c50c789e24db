"""What is done with a trained model: lines in, lines out; scores; a check of its files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from transduce import folder
from transduce.blueprint import Blueprint, override, read
from transduce.bundle import is_bundle
from transduce.confidence import confident
from transduce.data.lines import read_lines
from transduce.document import by_sentences, in_pieces, unfold
from transduce.evaluate import (
    BleuBlueprint,
    ChrfBlueprint,
    MetricBlueprint,
    Score,
)
from transduce.evaluate import evaluate as score_texts
from transduce.experiment import Experiment
from transduce.nn.packed import NumberType, pack
from transduce.problem import Problem
from transduce.recipe.calibrate import CalibrationBlueprint
from transduce.recipe.choose import RerankBlueprint, RiskBlueprint, by_block
from transduce.recipe.perplexity import held_out, perplexity
from transduce.result import Result
from transduce.search.constrain import ConstraintBlueprint, Own, read_own
from transduce.search.ensemble import Average
from transduce.search.interface import SearchBlueprint
from transduce.search.length import Length
from transduce.text.sentences import SplitBlueprint
from transduce.train.progress import Show
from transduce.transducer import Transducer

BOOTSTRAP = 1000  # resamples behind a confidence interval
Answering = Callable[..., Iterator[Result]]  # of lines, and what each has to obey besides
PIECES = "come from pieces of sentences that were too long"


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
    precision: NumberType | Literal["auto"] = "fp32"
    """numbers in which a CPU multiplies by large weights: fp32, bf16, int8, or auto: if it gains"""

    def joined(self, model: Transducer, parts: Sequence[Path]) -> Transducer:
        """Return the model, together with those of the ensemble."""
        if self.precision != "fp32":
            pack(model.model, self.precision)
        if self.ensemble is None:
            return model
        others = [
            Transducer.load(run, parts=parts, precision=self.precision)
            for run in self.ensemble.runs
        ]
        return model.ensemble(others, self.ensemble.average)


class FusionBlueprint(Blueprint):
    """A language model beside the model (Gulcehre 2015)."""

    run: str
    """folder of a run or of a model without an encoder"""
    weight: NonNegativeFloat = 0.2
    """of its log-probability; 0 does not ask it"""


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
    fusion: FusionBlueprint | None = None
    """a language model that has a say as well; null for none"""
    drafter: str | None = None
    """folder of a run of a smaller model, which search=speculative asks; null for none"""
    risk: RiskBlueprint | None = None
    """choose among several answers by a metric; null takes the best of the search"""
    rerank: RerankBlueprint | None = None
    """choose among several answers by what other models say; null takes the best of the search"""
    split: SplitBlueprint | None = None
    """answer each sentence of a line by itself; null answers lines"""

    @model_validator(mode="after")
    def _chooses_once(self) -> PredictBlueprint:
        if self.risk is not None and self.rerank is not None:
            raise ValueError("risk and rerank each choose an answer; leave one of them out")
        return self

    @model_validator(mode="after")
    def _asks_the_drafter(self) -> PredictBlueprint:
        if self.drafter is not None and not self.search.aided:
            raise ValueError(f"drafter: {self.search.kind} asks none; set search=speculative")
        return self

    def accompanied(self, model: Transducer, parts: Sequence[Path]) -> Transducer:
        """Return the model with the language model, and the small one, beside it."""
        if self.fusion is not None:
            language = Transducer.load(self.fusion.run, parts=parts, precision=self.precision)
            model = model.with_language_model(language, self.fusion.weight)
        if self.drafter is not None:
            drafter = Transducer.load(self.drafter, parts=parts, precision=self.precision)
            model = model.with_draft_model(drafter)
        return model

    def answers(
        self, model: Transducer, lines: Iterable[str], best: int = 1, ahead: int = 4096
    ) -> Iterator[Result]:
        """Yield the answer to each line, with the next best until there are ``best``.

        Raises:
            Problem: more are wanted than there are candidates, the search finds one answer only, or
                a line of the file ``own`` is faulty.
        """
        own = None
        if self.own is not None:
            own = read_own(Path(self.own), model.panel.target(model.length))
        if own is not None and self.split is not None:
            what = "what each line has to obey is about whole lines; leave one of them out"
            raise Problem(what, "own, split")
        yield from self.answering(model, best, ahead)(lines, own)

    def answering(self, model: Transducer, best: int = 1, ahead: int = 4096) -> Answering:
        """Return what answers lines, having loaded the models that choose among answers."""
        if self.split is not None and best > 1:
            raise Problem(
                "a document has one answer, not several; ask for one, or leave split out", "split"
            )
        choice = self.risk or self.rerank
        count = choice.candidates if choice else best
        if best > count:
            name = "risk" if self.risk else "rerank"
            raise Problem(f"{best} answers are wanted of {count}; raise it", f"{name}.candidates")
        chooser = choice.chooser(self.search, self.precision) if choice else None

        def answer(
            lines: Iterable[str], own: Iterable[Own | None] | None = None
        ) -> Iterator[Result]:
            found = model.predict(lines, self.search, own=own, alternatives=count - 1, ahead=ahead)
            return by_block(found, chooser, ahead) if chooser else found

        if self.split is None:
            return answer
        cut = partial(model.spans, split=self.split)
        return lambda lines, own: by_sentences(lines, cut, answer)


class ShownBlueprint(PredictBlueprint):
    """What can be changed about prediction, and about what is shown of it."""

    confidence: bool = False
    """how likely each answer is, by calibrated probabilities, in a column before it"""

    def answers(
        self, model: Transducer, lines: Iterable[str], best: int = 1, ahead: int = 4096
    ) -> Iterator[Result]:
        """Yield the answers, with their confidence if it is to be shown."""
        found = super().answers(model, lines, best, ahead)
        shown = (replace(one, alternatives=one.alternatives[: best - 1]) for one in found)
        sure = partial(confident, model)
        yield from by_block(shown, sure, ahead) if self.confidence else found


class EvaluateBlueprint(PredictBlueprint):
    """What can be changed about evaluation."""

    metrics: tuple[MetricBlueprint, ...] = Field((BleuBlueprint(), ChrfBlueprint()), min_length=1)
    """what to score with"""
    calibration: CalibrationBlueprint | None = None
    """also how far confidences are off; null does not ask"""


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
    model, setting = asked(run, changes, parts)
    results = setting.answers(model, lines, best, ahead)
    cut, none, unproven, pieces = list[int](), list[int](), list[int](), list[int]()
    for number, result in enumerate(results, 1):
        if not result.finished:
            (cut if result.tokens else none).append(number)
        if result.bound is not None and not result.proven:
            unproven.append(number)
        if in_pieces(sentence.span for sentence in result.sentences):
            pieces.append(number)
        for answer in (result, *result.alternatives[: best - 1]):
            yield _row(answer, number if best > 1 else None, scores, setting.confidence)
    _warn_unfinished(cut, none, setting, show)
    _warn(unproven, "are not proven to be the best", show)
    _warn(pieces, PIECES, show)


def stream(
    run: Path,
    lines: Iterable[str],
    changes: Sequence[str] = (),
    *,
    parts: Sequence[Path] = (),
    show: Show,
) -> Iterator[str]:
    """Yield one line for each line, in order, bit by bit as answers grow; else as ``predict``."""
    model, setting = asked(run, changes, parts)
    for name in ("risk", "rerank", "confidence"):
        if getattr(setting, name):
            raise Problem("it is about whole answers, which cannot be shown as they grow", name)
    if setting.own is not None:
        raise Problem("what each line has to obey is a matter of predict", "own")
    cut, none, pieces = list[int](), list[int](), list[int]()
    for number, line in enumerate(lines, 1):
        bits = model.stream(line, setting.search)
        if setting.split is not None:
            spans = model.spans(line, setting.split)
            bits = unfold(line, spans, partial(model.stream, search=setting.search))
            if in_pieces(spans):
                pieces.append(number)
        finished, shown = yield from _on_one_line(bits)
        if not finished:
            (cut if shown else none).append(number)
        yield "\n"
    _warn_unfinished(cut, none, setting, show)
    _warn(pieces, PIECES, show)


def _on_one_line(bits: Generator[str, None, bool]) -> Generator[str, None, tuple[bool, bool]]:
    """Yield the bits; return whether the answer has finished, and whether there was any."""
    shown = False
    while True:
        try:
            bit = next(bits)
        except StopIteration as end:
            return bool(end.value), shown
        shown = True
        yield _one_line(bit)


def _one_line(text: str) -> str:
    return text.replace("\n", " ")  # a line stays a line


def asked(
    run: Path, changes: Sequence[str], parts: Sequence[Path]
) -> tuple[Transducer, ShownBlueprint]:
    """Load a model, and others to ask as well; change how they answer.

    Raises:
        Problem: there is no sound model, or a change is no right one.
    """
    model = Transducer.load(run, parts=parts)
    own = ShownBlueprint(search=model.search, length=model.length, constraints=model.constraints)
    setting = override(own, changes)
    model = setting.accompanied(setting.joined(model, parts), parts)
    model.length, model.constraints = setting.length, setting.constraints
    return model, setting


def _warn_unfinished(
    cut: Sequence[int], none: Sequence[int], setting: PredictBlueprint, show: Show
) -> None:
    bound = setting.constraints or setting.own
    stuck = " or were left nothing to go on with by the constraints" if bound else ""
    _warn(cut, f"reached the length limit{stuck}", show)
    _warn(none, "are blank: the constraints allow none (within the length limit)", show)


def _warn(numbers: Sequence[int], what: str, show: Show) -> None:
    if numbers:
        show.say(f"warning: {len(numbers)} answers {what}: lines {_places(numbers)}")


def _places(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", ..." if numbers[10:] else "")


def _row(answer: Result, number: int | None, scores: bool, confidence: bool) -> str:
    text = _one_line(answer.text)
    columns = [f"{number}"] if number else []
    columns += [f"{answer.score:.4f}"] if scores else []
    columns += [f"{answer.confidence or 0.0:.4f}"] if confidence else []
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
    always added, of the model without a language model that is fused with it. A language model has
    perplexity alone, on one text file. ``parts`` are files of the user's own that define parts of
    the model or metrics.

    Raises:
        Problem: there is no sound model, the data is faulty, or a change is no right one.
    """
    model = Transducer.load(run, parts=parts)
    if not model.panel.reads:
        model = override(AskBlueprint(), changes).joined(model, parts)
        return [perplexity(model, held_out(model, data))]
    setting = EvaluateBlueprint(
        search=model.search, length=model.length, constraints=model.constraints
    )
    if (run / "experiment.yaml").exists():
        metrics = read(run / "experiment.yaml", Experiment).metrics
        setting = setting.model_copy(update={"metrics": metrics})
    setting = override(setting, changes)
    alone = setting.joined(model, parts)
    model = setting.accompanied(alone, parts)
    model.length, model.constraints = setting.length, setting.constraints
    examples = held_out(model, data)
    built = [metric.build() for metric in setting.metrics]
    sources = (example.sources["source"] for example in examples)
    answers = list(setting.answers(model, sources))
    if cut := sum(in_pieces(one.span for one in answer.sentences) for answer in answers):
        warnings.warn(f"{cut} answers {PIECES}", stacklevel=2)
    texts = [result.text for result in answers]
    scores = score_texts(built, texts, [example.references for example in examples], BOOTSTRAP)
    scores.append(perplexity(alone, examples))
    if setting.calibration is not None:
        scores += setting.calibration.scores(model, examples, answers)
    return scores


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
