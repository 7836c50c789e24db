"""The laws of searches over small scorers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from toys import MAKERS, NORMALISATIONS, Recurrent, Script, Table, answers, task

from transduce import testing, tree
from transduce.problem import Problem
from transduce.search import (
    BankedBeam,
    Beam,
    DiverseBeam,
    Epsilon,
    Exact,
    GnmtNormalisation,
    Greedy,
    LengthNormalisation,
    MinP,
    PowerNormalisation,
    RewardNormalisation,
    Sample,
    SearchBlueprint,
    StochasticBeam,
    TopK,
    TopP,
    Typical,
    force,
)
from transduce.text.vocabulary import EOS as TEXT_EOS

SEARCHES: list[SearchBlueprint] = [
    Greedy(),
    Beam(width=1),
    Beam(width=2, n_best=2),
    Beam(width=5, n_best=3, normalisation=PowerNormalisation(exponent=0.0)),
    Beam(width=7, n_best=7),
    Beam(width=3, n_best=2, normalisation=RewardNormalisation(), patience=2.0),
    Beam(width=4, n_best=2, normalisation=GnmtNormalisation(), patience=0.5),
    Beam(width=1, normalisation=RewardNormalisation(reward=3.0), patience=3.0),
    Sample(),
    Sample(samples=4, temperature=0.7, truncations=(TopK(count=6), TopP(mass=0.8))),
    Sample(samples=3, truncations=(Typical(), MinP(), Epsilon()), seed=1),
    StochasticBeam(width=1),
    StochasticBeam(width=6, seed=2),
    BankedBeam(width=3, n_best=2),
    DiverseBeam(groups=4, width=1),
    DiverseBeam(groups=3, width=3, penalty=1.5),
    Exact(nodes=40),
    Exact(nodes=60, width=1, n_best=3, normalisation=PowerNormalisation()),
]


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    return MAKERS[request.param]


def test_toys_are_scorers(maker: Callable[[int], Any]) -> None:
    tokens = torch.randint(0, 6, (5, 4), generator=torch.Generator().manual_seed(3))
    testing.check_scorer(maker(6), task(5, 6, 4).sources, tokens)


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_search_laws(maker: Callable[[int], Any], search: SearchBlueprint) -> None:
    testing.check_search(search, maker(9), *task(11, 9, 8))


def test_beam_one_is_greedy(maker: Callable[[int], Any]) -> None:
    testing.check_beam_one_is_greedy(maker(9), *task(40, 9, 12))


def test_only_what_is_decided_is_shown() -> None:
    scorer, given = Table(9), task(1, 9, 9)
    asked = scorer, scorer.encode(given.sources), given.prompt, given.limit
    parts = list(Greedy().unfold(*asked))
    assert [len(part) for part in parts] == [1] * int(Greedy()(*asked).lengths)
    assert list(Beam(width=1).unfold(*asked)) == parts
    with pytest.raises(Problem, match=r"search.kind: beam: it decides on whole answers"):
        list(Beam(width=2).unfold(*asked))


@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=repr)
def test_exact_search_is_exact(
    maker: Callable[[int], Any], normalisation: LengthNormalisation
) -> None:
    testing.check_exact(maker(5), *task(6, 5, 4), normalisation)


def test_finished_sources_leave() -> None:
    given, rows = task(20, 9, 12), list[int]()

    class Watched(Recurrent):
        def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
            rows.append(len(tokens))
            return super().extend(tokens, state)

    scorer = Watched(9)
    for search, width in ((Greedy(), 1), (Beam(width=3), 3)):
        rows.clear()
        search(scorer, scorer.encode(given.sources), given.prompt, given.limit)
        assert rows[0] == 20  # the prompt is read once, not once for every hypothesis
        assert rows[-1] <= 4 * width
        assert all(b == a or b <= 0.8 * a for a, b in itertools.pairwise(rows[1:]))


def test_states_move_only_when_hypotheses_do(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, given = Table(9), task(5, 9, 6)
    calls: list[Tensor] = []
    reorder = tree.reorder

    def counted(state: Any, rows: Tensor) -> Any:
        calls.append(rows)
        return reorder(state, rows)

    monkeypatch.setattr(tree, "reorder", counted)
    memory = scorer.encode(given.sources)
    Greedy()(scorer, memory, given.prompt, given.limit)
    Beam(width=1)(scorer, memory, given.prompt, given.limit)
    assert not calls
    Beam(width=3)(scorer, memory, given.prompt, given.limit)
    assert calls


def test_nothing_to_say() -> None:
    scorer, given = Table(6), task(3, 6, 4)
    scorer.scores[:] = -torch.inf
    sample = Sample(samples=2, truncations=(TopK(),))
    others = sample, StochasticBeam(), DiverseBeam(), Exact(n_best=2)
    for search in (Greedy(), Beam(width=3, n_best=2), *others):
        found = search(scorer, scorer.encode(given.sources), given.prompt, given.limit)
        assert not found.lengths.any()
        assert not found.finished.any()
        assert (found.scores == -torch.inf).all()
        assert (found.log_probs == -torch.inf).all()


@pytest.mark.parametrize(
    "search", [Greedy(), Beam(width=3), Sample(), StochasticBeam(), DiverseBeam(), Exact()], ids=str
)
def test_a_dead_end_keeps_what_came_before(search: SearchBlueprint) -> None:
    scorer = Script([{3: 1.0}, {3: 0.5}, {}])
    for limit, wanted in ((6, [3, 3]), (1, [3])):
        strings, finished = answers(search, scorer, limit)
        assert [string for string in strings if string] == [wanted]
        assert not finished.any()


def test_equal_tokens_lowest_first() -> None:
    scorer, given = Table(50), task(4, 50, 3)
    scorer.scores[:] = -math.log(50)
    memory, limit = scorer.encode(given.sources), torch.full_like(given.limit, 3)
    greedy = Greedy()(scorer, memory, given.prompt, limit)
    assert greedy.tokens.flatten(1).tolist() == [[0, 0, 0]] * 4
    beam = Beam(width=4, n_best=4, normalisation=PowerNormalisation(exponent=0.0))(
        scorer, memory, given.prompt, limit
    )
    assert [s[:n] for s, n in zip(beam.tokens[0].tolist(), beam.lengths[0], strict=True)] == [
        [2], [0, 2], [0, 0, 2], [0, 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "search",
    [Greedy(), Beam(width=2), Sample(truncations=(Typical(), TopP())), StochasticBeam(), Exact()],
    ids=str,
)
def test_nan_is_an_error(search: SearchBlueprint) -> None:
    scorer, given = Table(6), task(3, 6, 4)
    scorer.scores[:, 4] = torch.nan
    with pytest.raises(Problem, match="NaN"):
        search(scorer, scorer.encode(given.sources), given.prompt, given.limit)


def test_limits_begin_at_one() -> None:
    scorer, given = Table(6), task(3, 6, 4)
    with pytest.raises(ValueError, match="limits begin at 1"):
        Greedy()(scorer, scorer.encode(given.sources), given.prompt, given.limit * 0)


def test_force_reads_many_targets_at_once() -> None:
    scorer, given = Recurrent(7), task(4, 7, 4)
    tokens = torch.randint(0, 7, (4, 3, 5), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([[5, 1, 3]] * 4)
    memory = scorer.encode(given.sources)
    found: Float[Tensor, "B K T"] = force(scorer, memory, given.prompt, tokens, lengths)
    for k, length in enumerate(lengths[0].tolist()):
        string = torch.cat([given.prompt, tokens[:, k]], 1)
        log_probs, _ = scorer.extend(string, scorer.start(memory))
        for place in range(5):
            wanted = log_probs[:, 1 + place].gather(1, tokens[:, k, place, None])[:, 0]
            expected = wanted if place < length else torch.zeros(4)
            torch.testing.assert_close(found[:, k, place], expected)


def test_eos_is_the_eos_of_texts() -> None:
    assert Greedy().eos == Beam().eos == TEXT_EOS
