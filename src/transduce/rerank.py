"""Reranking: of the answers of one model the one that other models find good as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from transduce.result import Result
from transduce.transducer import Transducer

Asked = Literal["answer", "source", "text"]


@dataclass(frozen=True)
class Witness:
    """A model that is asked about the answers of another.

    About the ``answer``: how likely it is given the source, log p'(y|x), say to a model that writes
    from right to left (Liu 2016). About the ``source``: how likely that is given the answer,
    log p(x|y), to a model of the other direction (Yee 2019). About the ``text``: how likely the
    answer is as a text, log p(y), to a language model.
    """

    model: Transducer
    asked: Asked
    weight: float = 1.0

    def means(self, answers: Sequence[Result]) -> list[float]:
        """Return the mean log-probability of a symbol of what it is asked about."""
        sources, texts = [one.source for one in answers], [one.text for one in answers]
        pairs = {
            "answer": (sources, texts),
            "source": (texts, sources),
            "text": ([""] * len(texts), texts),
        }
        given, wanted = pairs[self.asked]
        places = [f"an answer to {source!r}" for source in sources]
        return [
            sum(token.log_prob for token in tokens) / len(tokens)
            for tokens in self.model.force(given, wanted, places)
        ]


def rerank(results: Sequence[Result], witnesses: Sequence[Witness]) -> list[Result]:
    """Return each result as the best of itself and its alternatives, the others behind it.

    An answer scores log p(y|x) per symbol plus, of each witness, ``weight`` times the mean
    log-probability of a symbol of what it was asked about: means, so that short answers gain
    nothing (Yee 2019 divides by lengths as well). ``score`` becomes that sum. Answers of one text
    are one, those that have finished come first, and of equal ones the one that came first. A
    result without alternatives stays what it is.

    Raises:
        Problem: an answer or a source is longer than there are positions learned by a witness.
    """
    chosen = [_different(result) if result.alternatives else [] for result in results]
    answers = [one for group in chosen for one in group]
    if not answers:
        return list(results)
    scores = [one.log_prob / max(1, len(one.tokens)) for one in answers]
    for witness in witnesses:
        found = witness.means(answers)
        scores = [score + witness.weight * one for score, one in zip(scores, found, strict=True)]
    judged = iter(
        replace(one, score=score, bound=None, alternatives=())
        for one, score in zip(answers, scores, strict=True)
    )
    return [
        _best([next(judged) for _ in group], result) if group else result
        for group, result in zip(chosen, results, strict=True)
    ]


def _different(result: Result) -> list[Result]:
    """Return all answers, of those with one text the first that has finished."""
    answers = sorted([result, *result.alternatives], key=lambda one: not one.finished)
    return list({one.text: one for one in reversed(answers)}.values())[::-1]


def _best(answers: Sequence[Result], result: Result) -> Result:
    best, *others = sorted(answers, key=lambda one: (not one.finished, -one.score))
    return replace(best, alternatives=tuple(others), source_pieces=result.source_pieces)
