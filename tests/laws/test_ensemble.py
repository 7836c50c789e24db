"""Ensembles are scorers like any other."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from toys import Recurrent, Table, with_holes, with_ties, without_eos

from transduce import testing
from transduce.search import Average, Beam, Ensemble, Exact, Greedy, Scorer
from transduce.sequences import Sequences

TOKENS = torch.tensor([[1, 4, 5, 3], [1, 3, 3, 4], [1, 5, 4, 3]])
SOURCES = {"source": Sequences.stack([torch.tensor(row) for row in ([4, 5, 2], [2], [3, 2])])}
PROMPT, LIMIT = torch.ones(3, 1, dtype=torch.long), torch.tensor([5, 6, 4])
MEMBERS: dict[str, tuple[Scorer, ...]] = {
    "one": (Table(6),),
    "alike": (Table(6), Table(6, seed=1)),
    "different": (Table(6), Recurrent(6), without_eos(6)),
    "with holes": (with_holes(6), Recurrent(6)),
    "nested": (Ensemble((Table(6), Recurrent(6))), Table(6, seed=2)),
}


@pytest.fixture(params=get_args(Average))
def average(request: pytest.FixtureRequest) -> Average:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
def test_the_laws(members: tuple[Scorer, ...], average: Average) -> None:
    ensemble = Ensemble(members, average)
    assert isinstance(ensemble, Scorer)
    testing.check_scorer(ensemble, SOURCES, TOKENS)
    for search in (Greedy(), Beam(width=3, n_best=2), Exact(nodes=50)):
        testing.check_search(search, ensemble, SOURCES, PROMPT, LIMIT)


def test_of_models_it_is_a_model(average: Average) -> None:
    members = Table(6), Recurrent(6), without_eos(6)
    testing.check_normalised(Ensemble(members, average), SOURCES, TOKENS)


@pytest.mark.parametrize("scorer", [Table(6), Recurrent(6), without_eos(6)])
def test_twins_are_the_twin(scorer: Scorer, average: Average) -> None:
    twins, memory = Ensemble((scorer, scorer), average), scorer.encode(SOURCES)
    found, _ = twins.extend(TOKENS, twins.start(twins.encode(SOURCES)))
    wanted, _ = scorer.extend(TOKENS, scorer.start(memory))
    torch.testing.assert_close(found, wanted)


def test_the_means_are_those_of_the_textbook() -> None:
    members: tuple[Scorer, ...] = (Table(6), Recurrent(6))
    said = [scorer.extend(TOKENS, scorer.start(scorer.encode(SOURCES)))[0] for scorer in members]
    arithmetic = (said[0].exp() + said[1].exp()) / 2
    geometric = (said[0].exp() * said[1].exp()).sqrt()
    wanted = {
        "probabilities": arithmetic,
        "log_probabilities": geometric / geometric.sum(-1, keepdim=True),
    }
    for average in get_args(Average):
        ensemble = Ensemble(members, average)
        found, _ = ensemble.extend(TOKENS, ensemble.start(ensemble.encode(SOURCES)))
        torch.testing.assert_close(found.exp(), wanted[average])


def test_each_may_have_a_source_of_its_own() -> None:
    members: tuple[Scorer, ...] = (Recurrent(6), Recurrent(6, seed=1))
    other = {"source": Sequences.stack([torch.tensor(row) for row in ([3, 2], [5, 5, 2], [2])])}
    ensemble = Ensemble(members)
    memory = ensemble.encode(SOURCES | {"2:source": other["source"]})
    found, _ = ensemble.extend(TOKENS, ensemble.start(memory))
    apart = members[0].encode(SOURCES), members[1].encode(other)
    wanted, _ = ensemble.extend(TOKENS, ensemble.start(apart))
    assert torch.equal(found, wanted)


def test_what_nobody_can_say_stays_impossible(average: Average) -> None:
    dead = with_ties(6)
    dead.scores[:] = -torch.inf
    ensemble = Ensemble((dead, dead), average)
    found, _ = ensemble.extend(TOKENS, ensemble.start(ensemble.encode(SOURCES)))
    assert (found == -torch.inf).all()
