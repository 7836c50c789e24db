"""What a model answers, and all that is known of the answer."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from transduce.search.hypotheses import Hypotheses
from transduce.text.codec import TextCodec
from transduce.text.sentences import Span


@dataclass(frozen=True)
class Token:
    """A symbol of the output and how likely the model found it."""

    piece: str
    log_prob: float  # natural logarithm
    id: int = -1  # number in the target vocabulary, where it is known
    confidence: float | None = None  # calibrated probability, if asked for
    alternatives: tuple[Token, ...] = ()  # the likeliest tokens at its place, if asked for

    @property
    def probability(self) -> float:
        """How likely the model found it, from 0 to 1."""
        return math.exp(self.log_prob)


@dataclass(frozen=True)
class Result:
    """What a model made of one input."""

    source: str
    text: str
    score: float  # what the search ranked by
    log_prob: float  # natural logarithm of the model's probability of the text
    finished: bool  # False: the length limit cut it off, or constraints left nothing to say
    tokens: tuple[Token, ...]
    alternatives: tuple[Result, ...] = ()  # the next best, if asked for
    source_pieces: tuple[str, ...] = ()
    attention: Float[np.ndarray, "T S"] | None = None  # tokens by source pieces, if asked for
    copying: Float[np.ndarray, "T S"] | None = None  # how likely each was copied from each piece
    bound: float | None = None  # proven by exact search: no finished answer scores higher
    sentences: tuple[Result, ...] = ()  # the answers to the sentences of a document
    span: Span | None = None  # where its source stands in a document

    @property
    def confidence(self) -> float | None:
        """The product of its tokens' confidences; None where one is not known."""
        if not self.tokens or self.log_prob == -math.inf:  # nothing was said, if only of a sentence
            return math.exp(self.log_prob)
        known = [token.confidence for token in self.tokens if token.confidence is not None]
        return math.prod(known) if len(known) == len(self.tokens) else None

    @property
    def proven(self) -> bool:
        """Whether exact search has proven that no finished answer scores higher."""
        return self.finished and self.bound is not None and self.score >= self.bound

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        words = "".join(
            f'<span title="{token.probability:.3f}" style="background:rgb(70 130 180 / '
            f'{(1 - token.probability) / 2:.2f})">{html.escape(token.piece)}</span> '
            for token in self.tokens
        )
        return (
            f'<div dir="auto"><b>{html.escape(self.text)}</b><br><small>{words}<br>'
            f"score {self.score:.3f}, log-probability {self.log_prob:.2f}</small></div>"
        )


def results_of(source: str, codec: TextCodec, found: Hypotheses, row: int) -> list[Result]:
    """Turn the hypotheses of one source into results, best first."""
    results = []
    for rank in range(found.tokens.shape[1]):
        length = int(found.lengths[row, rank])
        if length == 0 and rank > 0:
            continue
        ids = found.tokens[row, rank, :length].tolist()
        log_probs = found.token_log_probs[row, rank, :length].tolist()
        results.append(
            Result(
                source,
                codec.decode(ids),
                float(found.scores[row, rank]),
                float(found.log_probs[row, rank]),
                bool(found.finished[row, rank]),
                tuple(map(Token, codec.pieces(ids), log_probs, ids)),
                bound=None if found.bound is None else float(found.bound[row]),
            )
        )
    return results
