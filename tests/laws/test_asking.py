"""A device that is asked now and then gives the answers of one that is asked at every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import test_models
import torch
from asks import asks
from jaxtyping import Float, Int
from torch import Tensor
from toys import MAKERS, Table, TableState, task, without_eos

from transduce.asking import STEPS, asking_every, interval
from transduce.problem import Problem
from transduce.search import (
    AtLeast,
    BankedBeam,
    Batch,
    Beam,
    DiverseBeam,
    Epsilon,
    Greedy,
    Hypotheses,
    Sample,
    Scorer,
    StepwiseSearch,
    StochasticBeam,
    TopK,
    TopP,
    Typical,
    answers,
)
from transduce.search.constrain import Constrained
from transduce.search.constrain.repeat import NoRepeat
from transduce.search.top import top
from transduce.testing.compare import pick

EACH: list[StepwiseSearch] = [
    Greedy(),
    Beam(width=3, n_best=2),
    BankedBeam(width=3),
    DiverseBeam(groups=2, width=2),
    Sample(samples=2, truncations=(TopK(count=4), TopP(mass=0.8), Typical(), Epsilon())),
    StochasticBeam(width=3),
]


def refilled(
    search: StepwiseSearch, scorer: Scorer, given: Any, sizes: list[int], room: int
) -> list[Hypotheses]:
    """Return the answers to sources that come in several batches."""
    sources, prompt, limit = given

    def batches() -> Iterator[Batch]:
        for rows in torch.split(torch.arange(len(limit)), sizes):
            memory = scorer.encode(pick(sources, rows))
            yield Batch(memory, prompt[rows], limit[rows], rows)

    return list(answers(search, scorer, batches(), room))


def require_same(found: Hypotheses, wanted: Hypotheses, exactly: bool) -> None:
    for name in ("tokens", "lengths", "finished"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name
    # Products of fewer or more rows at a time may differ in the last digits.
    tolerance = 0.0 if exactly else 1e-5
    for name in ("scores", "log_probs", "token_log_probs"):
        ours, theirs = getattr(found, name), getattr(wanted, name)
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("search", EACH, ids=lambda search: str(search.kind))
@pytest.mark.parametrize("maker", ["table", "with holes", "with ties", "recurrent"])
def test_sources_come_and_go_between_two_looks(search: StepwiseSearch, maker: str) -> None:
    scorer, given = MAKERS[maker](6), task(9, 6, 25)
    wanted = refilled(search, scorer, given, [4, 3, 2], 5)
    with asking_every(STEPS):
        found = refilled(search, scorer, given, [4, 3, 2], 5)
    assert len(found) == len(wanted) == 3
    for ours, theirs in zip(found, wanted, strict=True):
        require_same(ours, theirs, exactly=maker != "recurrent")


@pytest.mark.parametrize("search", EACH, ids=lambda search: str(search.kind))
def test_who_searches_asks_once_in_eight_steps(search: StepwiseSearch) -> None:
    scorer, given = Constrained(AtLeast(without_eos(6), lambda x: x), NoRepeat(3)), task(4, 6, 9)
    numbers = []
    for steps in (24, 64):
        limit = torch.full_like(given.limit, steps)
        memory = scorer.encode(given.sources)
        with asking_every(STEPS), asks() as found:
            search(scorer, memory, given.prompt, limit)
        numbers.append(found.number)
    # Two parts ask, each once in eight steps: the driver, and what forbids to say things again.
    assert numbers[1] - numbers[0] <= 2 * (64 - 24) // STEPS
    assert numbers[0] <= 2 * 24 // STEPS + 16
    with asks() as always:
        search(scorer, memory, given.prompt, limit)
    assert always.number > numbers[1] + 64, "otherwise nothing is counted"


def test_rows_of_unequal_length_ask_once_in_eight_steps_for_all_layers() -> None:
    model, sources, prompt, _ = test_models.case("transformer", "transformer", 6, 7, 40)
    scorer = AtLeast(model, lambda lengths: torch.full_like(lengths, 99))
    given = sources, prompt, torch.tensor([5, 5, 40, 40, 40, 40])
    numbers = {}
    for every in (1, STEPS):
        with asking_every(every), asks() as found:
            refilled(Greedy(), scorer, given, [2, 2, 2], 4)
            numbers[every] = found.number
    assert numbers[STEPS] <= 2 * 40 // STEPS + 24
    assert numbers[1] > 3 * 40, "otherwise nothing is counted"


class Counted(NamedTuple):
    inner: TableState
    read: Int[Tensor, "N"]


class Counting:
    """A table without eos that refuses rows that read more than there is room for."""

    def __init__(self, symbols: int, most: int) -> None:
        self.table, self.most = without_eos(symbols), most
        self.encode = self.table.encode

    def start(self, memory: Any, width: int = 1, capacity: int | None = None) -> Counted:
        inner = self.table.start(memory, width, capacity)
        return Counted(inner, torch.zeros_like(inner.prefix))

    def extend(
        self, tokens: Int[Tensor, "N T"], state: Counted
    ) -> tuple[Float[Tensor, "N T V"], Counted]:
        log_probs, inner = self.table.extend(tokens, state.inner)
        read = state.read + tokens.shape[1]
        assert (read <= self.most).all(), "there are no more positions"
        return log_probs, Counted(inner, read)


@pytest.mark.parametrize("every", [1, STEPS])
def test_nobody_reads_more_than_the_longest_of_its_batch_may(every: int) -> None:
    given = task(22, 5, 4)
    prompt, limit = given.prompt[:, :1], torch.tensor([10] * 10 + [20] * 12)
    # When the two of the second batch are answered, those of the third are too many for it to be
    # worth while to drop two.
    with asking_every(every):
        found = refilled(Greedy(), Counting(5, 20), (given.sources, prompt, limit), [10, 2, 10], 12)
    assert [{*part.lengths.flatten().tolist()} for part in found] == [{10}, {20}, {20}]


def test_scores_that_are_no_numbers_are_refused_at_the_next_look() -> None:
    given, scorer = task(3, 6, 30), Table(6)
    scorer.scores[::7, 3] = torch.nan
    for search in EACH:
        with asking_every(STEPS), pytest.raises(Problem, match="NaN instead of scores"):
            search(scorer, scorer.encode(given.sources), given.prompt, given.limit)


def test_the_best_are_the_same_without_a_question() -> None:
    generator = torch.Generator().manual_seed(1)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        scores = torch.randint(-3, 3, (20, 40), generator=generator).to(dtype) / 3
        scores[:, ::5] = -0.0
        scores[scores < -0.9] = -torch.inf
        for count in (1, 4, 11):
            values, ids = top(scores, count)
            with asking_every(STEPS), asks() as found:
                others = top(scores, count)
            assert found.number == 0
            assert torch.equal(others[0], values)
            real = values > -torch.inf
            assert torch.equal(others[1][real], ids[real])


def test_only_a_device_that_works_ahead_is_left_alone() -> None:
    assert interval(torch.device("cpu")) == 1
    assert interval(torch.device("cuda")) == STEPS


@pytest.mark.parametrize("search", [Greedy(), Beam(width=1), Sample()], ids=str)
def test_a_stream_shows_each_token_at_once(search: StepwiseSearch) -> None:
    given, scorer = task(1, 6, 30), Table(6)
    asked = scorer, scorer.encode(given.sources), given.prompt, given.limit
    wanted = list(search.unfold(*asked))
    with asking_every(STEPS):
        assert list(search.unfold(*asked)) == wanted
    assert all(len(part) <= 1 for part in wanted)
