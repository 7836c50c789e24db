"""Documents: each sentence is answered by itself, and the answers are put together again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from transduce.result import Result
from transduce.text.sentences import Span, between


@dataclass
class _Waiting:
    text: str
    spans: list[Span]
    found: list[Result] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        return len(self.found) == len(self.spans)


def by_sentences(
    documents: Iterable[str],
    split: Callable[[str], list[Span]],
    answer: Callable[[Iterator[str]], Iterator[Result]],
) -> Iterator[Result]:
    """Yield the answer to each document, in order.

    All sentences are one stream, so that those of different documents can share a batch.
    ``answer`` yields one result for each, in order.
    """
    waiting = deque[_Waiting]()

    def sentences() -> Iterator[str]:
        for text in documents:
            waiting.append(_Waiting(text, split(text)))
            yield from (span.read(text) for span in waiting[-1].spans)

    for result in answer(sentences()):
        while waiting[0].answered:  # they were blank
            yield _together(waiting.popleft())
        waiting[0].found.append(result)
        if waiting[0].answered:
            yield _together(waiting.popleft())
    yield from map(_together, waiting)


def in_pieces(spans: Iterable[Span | None]) -> bool:
    """Whether any sentence was too long and had to be cut."""
    return any(span is not None and not span.whole for span in spans)


def unfold(
    document: str, spans: list[Span], stream: Callable[[str], Generator[str, None, bool]]
) -> Generator[str, None, bool]:
    """Yield the answer to a document as it grows; return whether every sentence has finished."""
    gaps, finished = _gaps(document, spans), True
    yield gaps[0]
    for span, gap in zip(spans, gaps[1:], strict=True):
        sentence, said = span.read(document), ""
        bits = stream(sentence)
        while True:
            try:
                bit = next(bits)
            except StopIteration as end:
                finished &= end.value
                break
            said += bit
            yield bit
        yield between(gap, sentence, said)
    return finished


def _together(document: _Waiting) -> Result:
    """Join the answers to the sentences; log-probabilities, scores and bounds add up."""
    text, spans, found = document.text, document.spans, document.found
    gaps = _gaps(text, spans)
    joined = gaps[0] + "".join(
        one.text + between(gap, one.source, one.text)
        for one, gap in zip(found, gaps[1:], strict=True)
    )
    bounds = [one.bound for one in found if one.bound is not None]
    return Result(
        text,
        joined,
        sum((one.score for one in found), 0.0),
        sum((one.log_prob for one in found), 0.0),
        all(one.finished for one in found),
        tuple(token for one in found for token in one.tokens),
        bound=sum(bounds) if found and len(bounds) == len(found) else None,
        sentences=tuple(replace(one, span=span) for one, span in zip(found, spans, strict=True)),
    )


def _gaps(document: str, spans: list[Span]) -> list[str]:
    """Return the white space before, between and behind the spans, where else only tags stand."""
    edges = [Span(0, 0), *spans, Span(len(document), len(document))]
    gaps = (document[left.end : right.start] for left, right in pairwise(edges))
    return ["".join(filter(str.isspace, gap)) for gap in gaps]
