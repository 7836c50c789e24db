"""How sure a model is: calibrated probabilities, and what else it might have said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from transduce.data.stream import by_length
from transduce.panel import TOKENS
from transduce.result import Result, Token
from transduce.search.top import top
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS
from transduce.transducer import Transducer

LEAST: Final = -1e4  # stands for -inf, which no temperature can be applied to


def confident(model: Transducer, results: Sequence[Result], alternatives: int = 0) -> list[Result]:
    """Return answers of a model with how sure it is of each token, and what it might have said.

    The ``confidence`` of a token is its calibrated probability behind what stands before it:
    log-probabilities are divided by the model's temperature and normalised again (Guo 2017). Of
    each place the ``alternatives`` likeliest tokens are named, with theirs. So are those of the
    next best answers, and of the sentences of a document. Nothing else changes: no score, no rank.
    """
    groups = [list(one.sentences) or [one, *one.alternatives] for one in results]
    known = iter(_looked_at(model, [one for group in groups for one in group], alternatives))
    found = []
    for result, group in zip(results, groups, strict=True):
        best, *others = looked = [next(known) for _ in group]
        if result.sentences:
            tokens = tuple(token for sentence in looked for token in sentence.tokens)
            found.append(replace(result, tokens=tokens, sentences=tuple(looked)))
        else:
            found.append(replace(best, alternatives=tuple(others)))
    return found


def _looked_at(model: Transducer, results: list[Result], alternatives: int) -> list[Result]:
    found = list(results)
    asked = [row for row, result in enumerate(found) if result.tokens]
    sources = [found[row].source for row in asked]
    symbols = [[token.id for token in found[row].tokens] for row in asked]
    for place, log_probs in distributions(model, sources, symbols):
        row, codec = asked[place], model.target.reading(sources[place], model.panel.slots)
        calibrated = tempered(log_probs, model.temperature)
        sure = calibrated.gather(1, torch.tensor(symbols[place])[:, None])[:, 0].exp().tolist()
        others: list[tuple[Token, ...]] = [()] * len(sure)
        if alternatives:
            values, ids = top(calibrated, alternatives)
            others = [
                _tokens(codec.pieces(numbers), log_probs[position, numbers].tolist(), numbers, near)
                for position, (numbers, near) in enumerate(
                    zip(ids.tolist(), values.exp().tolist(), strict=True)
                )
            ]
        tokens = tuple(
            replace(token, confidence=one, alternatives=several)
            for token, one, several in zip(found[row].tokens, sure, others, strict=True)
        )
        found[row] = replace(found[row], tokens=tokens)
    return found


def following(
    model: Transducer, source: str, prefix: str = "", count: int = 5
) -> tuple[Token, ...]:
    """Return the ``count`` tokens that a model finds likeliest behind the beginning of an answer.

    The prefix is cut into symbols as a text of its own; for a model that writes from right to left
    it is the end of an answer.

    Raises:
        Problem: a text is longer than there are positions learned.
    """
    ids = model.panel.read("target", "the prefix", prefix, source)[0]
    codec = model.target.reading(source, model.panel.slots)
    ((_, log_probs),) = distributions(model, [source], [ids])
    values, near = top(tempered(log_probs[-1:], model.temperature), count)
    numbers = near[0].tolist()
    said = log_probs[-1, numbers].tolist()
    return _tokens(codec.pieces(numbers), said, numbers, values[0].exp().tolist())


def _tokens(
    pieces: Sequence[str],
    log_probs: Sequence[float],
    ids: Sequence[int],
    confidences: Sequence[float],
) -> tuple[Token, ...]:
    return tuple(map(Token, pieces, log_probs, ids, confidences))


def tempered(log_probs: Float[Tensor, "T V"], temperature: float) -> Float[Tensor, "T V"]:
    """Divide log-probabilities by a temperature and normalise them again."""
    return (log_probs.clamp(min=LEAST) / temperature).log_softmax(-1)


@torch.no_grad()
def distributions(
    model: Transducer, sources: Sequence[str], symbols: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Float[Tensor, "T V"]]]:
    """Yield the number of each pair, in no order, and what may stand at each place of its target.

    Targets are given by their symbols; at place t the model has read those before t.

    Raises:
        Problem: a source is longer than there are positions learned.
    """
    model.panel.evaluate()
    read = [
        model.panel.read("source", f"text {number}", source, source)
        for number, source in enumerate(sources, 1)
    ]
    pairs = zip(read, symbols, strict=True)
    lengths = [max(len(ids), *map(len, own)) for own, ids in pairs]
    for batch in by_length(np.array(lengths, dtype=np.int64), TOKENS // 8, model.rows):
        memory = model.panel.scorer.encode(model.panel.stack(read[row] for row in batch))
        rows = [torch.tensor([BOS, *symbols[row][:-1]]) for row in batch]
        inputs = Sequences.stack(rows).data.to(model.device)
        log_probs, _ = model.panel.scorer.extend(inputs, model.panel.scorer.start(memory))
        for place, row in enumerate(batch.tolist()):
            yield row, log_probs[place, : len(symbols[row])].float().cpu()
