"""Every search of the package over every scorer of the package, judged by enumeration."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, NamedTuple, get_args

import pytest
import test_constrain
import test_models
import torch
from jaxtyping import Float, Int
from torch import Tensor
from toys import MAKERS, NORMALISATIONS, Recurrent, Table, task

from transduce import testing
from transduce.problem import Problem
from transduce.search import (
    Aided,
    Average,
    BankedBeam,
    Beam,
    DiverseBeam,
    Draft,
    Ensemble,
    Exact,
    Fusion,
    Greedy,
    Length,
    PowerNormalisation,
    Sample,
    Scorer,
    SearchBlueprint,
    Speculative,
    StochasticBeam,
    TopP,
)
from transduce.search.constrain import Constrained
from transduce.sequences import Sequences

SYMBOLS, LONGEST = 5, 4
PLAIN: Final = PowerNormalisation(exponent=0.0)


class Given(NamedTuple):
    """A scorer and what it is asked."""

    scorer: Any
    sources: dict[str, Sequences]
    prompt: Int[Tensor, "B 1"]
    limit: Int[Tensor, "B"]


def asked(make: Callable[[int], Scorer]) -> Given:
    sources, prompt, limit = task(5, SYMBOLS, LONGEST)
    return Given(make(SYMBOLS), sources, prompt[:, :1], limit)


def modelled(decoder: str, head: str = "linear") -> Given:
    return Given(*test_models.case("recurrent", decoder, 5, SYMBOLS, LONGEST, head))


def constrained(kind: str, scorer: Callable[[int], Scorer]) -> Given:
    constraint = test_constrain.EVERY[kind](random.Random(5))
    sources, prompt, limit = test_constrain.task(4, LONGEST)
    return Given(Constrained(scorer(test_constrain.SYMBOLS), constraint), sources, prompt, limit)


def short(length: Length, make: Callable[[int], Scorer]) -> Given:
    given = asked(lambda symbols: length.over(make(symbols)))
    return given._replace(limit=length.limit(given.sources["source"].lengths, given.limit))


def together(average: Average) -> Given:
    makers = Table, Recurrent, partial(Table, seed=1)
    return asked(lambda symbols: Ensemble(tuple(make(symbols) for make in makers), average))


def fused(symbols: int) -> Scorer:
    return Fusion(Recurrent(symbols), Table(symbols), 0.5)


SCORERS: dict[str, Callable[[], Given]] = {
    **{name: partial(asked, make) for name, make in MAKERS.items()},
    **{
        f"{name} decoder": partial(modelled, name)
        for name in test_models.DECODERS
        if "-" not in name
    },
    **{f"{name} head": partial(modelled, "recurrent", name) for name in test_models.HEADS},
    **{f"{kind} over a table": partial(constrained, kind, Table) for kind in test_constrain.EVERY},
    "lengths": partial(short, Length(least=2, least_ratio=0.5), Recurrent),
    **{f"mean of {average}": partial(together, average) for average in get_args(Average)},
    "a language model beside it": lambda: asked(fused),
}
SEARCHES: dict[str, list[SearchBlueprint]] = {
    "greedy": [Greedy()],
    "draft": [Draft(), Draft(span=2, match=1)],
    "beam": [Beam(width=1), Beam(width=3, n_best=3, normalisation=PLAIN), Beam(width=5, n_best=2)],
    "banked_beam": [BankedBeam(width=1), BankedBeam(width=4, n_best=2)],
    "speculative": [Speculative(), Speculative(span=1)],
    "diverse_beam": [DiverseBeam(groups=3, width=2)],
    "sample": [Sample(samples=3), Sample(samples=4, temperature=0.7, truncations=(TopP(),))],
    "stochastic_beam": [StochasticBeam(width=4)],
    "exact": [Exact(nodes=9), Exact(nodes=9, n_best=3, normalisation=PowerNormalisation())],
}
EVERY: Final = [search for searches in SEARCHES.values() for search in searches]


def test_no_search_is_left_out() -> None:
    choices = SearchBlueprint.choices().items()
    ours = {kind for kind, search in choices if search.__module__.startswith("transduce.")}
    assert set(SEARCHES) == ours


@pytest.fixture(params=SCORERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def best(name: str) -> Float[Tensor, "B"]:
    """Return the log-probability of the likeliest answer there is to each source."""
    scorer, sources, prompt, limit = SCORERS[name]()
    every = testing.brute_force(scorer, sources, prompt, limit, SearchBlueprint.eos)
    return torch.tensor([max(known.values()) for known in every])


@pytest.mark.parametrize("search", EVERY, ids=str)
def test_searches_keep_the_laws_and_beat_nothing_that_is_best(
    name: str, search: SearchBlueprint
) -> None:
    scorer, sources, prompt, limit = SCORERS[name]()
    if search.aided:
        known = scorer.extend(prompt, scorer.start(scorer.encode(sources)))[0].shape[2]
        scorer = Aided(scorer, Recurrent(known))
    try:
        found = search(scorer, scorer.encode(sources), prompt, limit)
    except Problem:
        assert search.shares, "only who takes symbols of the source may be refused"
        return
    testing.check_search(search, scorer, sources, prompt, limit)
    likely = found.log_probs.masked_fill(~found.finished, -torch.inf).amax(1)
    assert (likely <= best(name) + 1e-4).all()
    if isinstance(search, Draft | Speculative):
        testing.check_draft_is_greedy(search, scorer, sources, prompt, limit)


def test_a_beam_of_one_is_greedy(name: str) -> None:
    testing.check_beam_one_is_greedy(*SCORERS[name]())


@pytest.mark.parametrize("normalisation", [NORMALISATIONS[0], NORMALISATIONS[2]], ids=repr)
def test_exact_search_is_enumeration(name: str, normalisation: PowerNormalisation) -> None:
    testing.check_exact(*SCORERS[name](), normalisation)


def test_a_beam_that_is_wide_enough_is_enumeration(name: str) -> None:
    scorer, sources, prompt, limit = SCORERS[name]()
    testing.check_beam_exact(scorer, sources, prompt, limit.clamp(max=3), PLAIN)
