"""Sampling: what is drawn follows the distribution that was asked for, wherever it is drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import tiny
import torch
from torch import Tensor

from transduce.problem import Problem
from transduce.search import (
    Batch,
    Epsilon,
    MinP,
    Sample,
    StepwiseSearch,
    StochasticBeam,
    TopK,
    TopP,
    Truncation,
    Typical,
    answers,
)
from transduce.search.noise import gumbel, uniform
from transduce.transducer import Transducer

EOS, SYMBOLS = 2, 5
TRUNCATIONS: list[Truncation] = [
    TopK(count=1), TopK(count=3), TopK(count=40),
    TopP(mass=0.3), TopP(mass=0.9),
    MinP(ratio=0.1), MinP(ratio=1.0),
    Typical(mass=0.2), Typical(mass=0.95),
    Epsilon(least=0.05), Epsilon(least=0.9),
]  # fmt: skip


def kept(truncation: Truncation, probs: Sequence[float]) -> set[int]:
    """Return the symbols that may be drawn, as the papers have it."""

    def fewest(order: list[int], mass: float) -> set[int]:
        chosen: set[int] = set()
        for symbol in order:
            if sum(probs[other] for other in chosen) < mass:
                chosen.add(symbol)
        return chosen

    best_first = sorted(range(len(probs)), key=lambda symbol: -probs[symbol])
    match truncation:
        case TopK():
            return set(best_first[: truncation.count])
        case TopP():
            return fewest(best_first, truncation.mass)
        case Typical():
            surprise = [-math.log(p) if p else math.inf for p in probs]
            entropy = sum(p * s for p, s in zip(probs, surprise, strict=True) if p)
            order = sorted(range(len(probs)), key=lambda symbol: abs(surprise[symbol] - entropy))
            return fewest(order, truncation.mass)
        case MinP():
            return {s for s, p in enumerate(probs) if p >= truncation.ratio * max(probs)}
        case Epsilon():
            return {s for s, p in enumerate(probs) if p > truncation.least} or {best_first[0]}
    raise AssertionError(truncation)


def tempered(log_probs: Sequence[float], search: Sample) -> list[float]:
    """Return the probabilities with which the symbols should be drawn."""
    weights = [math.exp(value / search.temperature) for value in log_probs]
    probs = [weight / sum(weights) for weight in weights]
    for truncation in search.truncations:
        left = kept(truncation, probs)
        total = sum(probs[symbol] for symbol in left)
        probs = [p / total if symbol in left else 0.0 for symbol, p in enumerate(probs)]
    return probs


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
def test_truncation_is_the_reference(truncation: Truncation) -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = (torch.randn(40, 30, generator=generator) * 2).log_softmax(1)
    log_probs[10:20, 5:] = -torch.inf
    log_probs = log_probs.log_softmax(1)
    for row, keep in zip(log_probs, truncation.keep(log_probs), strict=True):
        possible = {symbol for symbol in range(30) if row[symbol] > -torch.inf}
        wanted = kept(truncation, row.exp().tolist())
        assert set(keep.nonzero()[:, 0].tolist()) & possible == wanted & possible


def test_truncations_follow_one_another() -> None:
    log_probs = (torch.randn(50, 30, generator=torch.Generator().manual_seed(1))).log_softmax(1)
    for first, second in ((TopK(count=5), Typical(mass=0.5)), (Typical(mass=0.5), TopK(count=5))):
        search = Sample(temperature=1.7, truncations=(first, second))
        wanted = [tempered(row, search) for row in log_probs.tolist()]
        torch.testing.assert_close(search.drawn_from(log_probs), torch.tensor(wanted))


def test_a_temperature_near_zero_is_greedy() -> None:
    log_probs = torch.randn(9, 30, generator=torch.Generator().manual_seed(2)).log_softmax(1)
    probs = Sample(temperature=1e-40).drawn_from(log_probs)
    assert probs.argmax(1).tolist() == log_probs.argmax(1).tolist()
    assert (probs.amax(1) == 1).all()


class Chain:
    """A scorer in which the next symbol depends on the last one only."""

    def __init__(self) -> None:
        noise = torch.randn(SYMBOLS, SYMBOLS, generator=torch.Generator().manual_seed(3))
        self.scores = noise.log_softmax(1)

    def encode(self, sources: object) -> None:
        """There is nothing to read."""

    def start(self, memory: object, width: int = 1, capacity: int | None = None) -> None:
        """Nothing is remembered."""

    def extend(self, tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return self.scores[tokens], None


PLAIN = Sample()


def strings(search: StepwiseSearch, keys: int, limit: int) -> list[list[tuple[int, ...]]]:
    """Return the answers to the same source under many keys, by their scores."""
    prompt, most = torch.ones(keys, 1, dtype=torch.long), torch.full((keys,), limit)
    batch = Batch(torch.zeros(keys), prompt, most, torch.arange(keys))
    found = next(answers(search, Chain(), [batch], keys))
    order = found.scores.argsort(1, descending=True)
    lengths = found.lengths.gather(1, order)
    tokens = found.tokens.gather(1, order[:, :, None].expand_as(found.tokens))
    return [
        [tuple(string[:length]) for string, length in zip(*source, strict=True)]
        for source in zip(tokens.tolist(), lengths.tolist(), strict=True)
    ]


def distribution(limit: int, search: Sample = PLAIN) -> dict[tuple[int, ...], float]:
    """Return how likely every answer should be."""
    steps = [tempered(row, search) for row in Chain().scores.tolist()]
    open_: dict[tuple[int, ...], float] = {(1,): 1.0}
    ended: dict[tuple[int, ...], float] = {}
    for _ in range(limit):
        longer = {
            (*string, symbol): p * steps[string[-1]][symbol]
            for string, p in open_.items()
            for symbol in range(SYMBOLS)
        }
        ended |= {string[1:]: p for string, p in longer.items() if string[-1] == EOS}
        open_ = {string: p for string, p in longer.items() if string[-1] != EOS}
    return ended | {string[1:]: p for string, p in open_.items()}


def surprise(found: Counter[tuple[int, ...]], wanted: dict[tuple[int, ...], float]) -> float:
    """Return how many standard deviations chi-square lies above what chance would give."""
    size = found.total()
    assert all(wanted[string] > 0 for string in found)
    frequent = {string: p * size for string, p in wanted.items() if p * size >= 5}
    squares = sum((found[s] - count) ** 2 / count for s, count in frequent.items())
    return (squares - len(frequent)) / math.sqrt(2 * len(frequent))


@pytest.mark.parametrize(
    "search",
    [
        Sample(samples=100),
        Sample(samples=100, temperature=0.6, seed=7),
        Sample(samples=100, temperature=1.5, truncations=(TopK(count=3),)),
        Sample(samples=100, truncations=(Typical(mass=0.7), MinP(ratio=0.2))),
    ],
    ids=str,
)
def test_samples_follow_the_distribution(search: Sample) -> None:
    found = Counter(string for source in strings(search, 200, 3) for string in source)
    assert surprise(found, distribution(3, search)) < 4
    other = search.model_copy(update={"temperature": search.temperature * 1.2})
    assert surprise(found, distribution(3, other)) > 20


def test_more_samples_begin_with_the_fewer() -> None:
    few, many = (strings(Sample(samples=k), 30, 4) for k in (3, 9))
    assert all(not Counter(a) - Counter(b) for a, b in zip(few, many, strict=True))
    assert len({tuple(sorted(source)) for source in many}) == 30  # each source has its own
    assert strings(Sample(samples=3, seed=1), 30, 4) != few


def test_a_stochastic_beam_draws_without_replacement() -> None:
    found = strings(StochasticBeam(width=2), 20_000, 2)
    probs = distribution(2)
    assert surprise(Counter(first for first, _ in found), probs) < 4
    pairs = {
        (*a, -1, *b): p * q / (1 - p) for a, p in probs.items() for b, q in probs.items() if a != b
    }
    drawn = Counter((*a, -1, *b) for a, b in found)
    assert surprise(drawn, pairs) < 4
    twice = {(*a, -1, *b): p * q for a, p in probs.items() for b, q in probs.items()}
    assert surprise(drawn, twice) > 20


def test_the_first_answer_of_a_stochastic_beam_is_a_sample() -> None:
    sample, beam = strings(Sample(seed=4), 300, 5), strings(StochasticBeam(seed=4), 300, 5)
    assert [first for first, *_ in beam] == [only for (only,) in sample]


def test_a_stochastic_beam_wider_than_all_strings_draws_them_all() -> None:
    every = distribution(2)
    for source in strings(StochasticBeam(width=len(every) + 3), 20, 2):
        assert sorted(source) == sorted([*every, (), (), ()])


def test_noise_is_what_it_should_be() -> None:
    source, symbol = torch.arange(500)[:, None], torch.arange(400)
    chance = uniform(0, source, symbol)
    assert len(set(chance.flatten().tolist())) == chance.numel()
    assert float(chance.mean()) == pytest.approx(0.5, abs=0.003)
    assert float(chance.var()) == pytest.approx(1 / 12, abs=0.001)
    pairs = torch.corrcoef(torch.stack([chance[:, :-1].flatten(), chance[:, 1:].flatten()]))
    assert abs(float(pairs[0, 1])) < 0.01
    assert not torch.equal(chance, uniform(0, symbol, source))
    assert not torch.equal(chance, uniform(1, source, symbol))
    assert float(gumbel(0, source, symbol).mean()) == pytest.approx(0.5772, abs=0.01)


def test_a_text_has_its_samples_wherever_it_is_asked() -> None:
    model = Transducer(tiny.bundle(tiny.MODELS["recurrent"]))
    texts = ["abc", "cab", "b", "aabbcc", "abc"]
    search = Sample(samples=4, temperature=2.0)
    whole = [(r, *r.alternatives) for r in model(texts, search)]
    assert [one.tokens for one in whole[0]] == [one.tokens for one in whole[4]]
    for text, wanted in zip(texts, whole, strict=True):
        alone = model(text, search)
        for ours, theirs in zip((alone, *alone.alternatives), wanted, strict=True):
            assert ours.text == theirs.text
            assert ours.score == pytest.approx(theirs.score, abs=1e-4)
    assert len(model("abc", search, alternatives=6).alternatives) == 6
    one = Sample(temperature=2.0)
    shown = ["".join(model.stream(text, one)) for text in texts]
    assert shown == [answer.text for answer in model(texts, one)]


def test_a_scorer_that_knows_no_end_is_cut() -> None:
    assert all(len(s) == 1 for source in strings(Sample(samples=5), 4, 1) for s in source)


def test_nan_is_an_error_whatever_is_barred() -> None:
    log_probs = torch.tensor([[0.0, torch.nan]])
    with pytest.raises(Problem, match="NaN"):
        Sample(truncations=(TopP(),)).drawn_from(log_probs)
