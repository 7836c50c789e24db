"""Exact search on models: nothing beats it, and what it says of itself is true."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from transduce.search import (
    Beam,
    Exact,
    Greedy,
    Hypotheses,
    PowerNormalisation,
    SearchBlueprint,
    search_errors,
)
from transduce.sequences import Sequences
from transduce.transducer import Transducer

MODELS = tiny.MODELS | {"stepwise": tiny.STEPWISE}


def found(model: Transducer, search: SearchBlueprint, limit: int = 6) -> Hypotheses:
    sources = {"source": Sequences.stack([torch.tensor([5, 4, 6, 2]), torch.tensor([4, 2])])}
    prompt = torch.ones(2, 1, dtype=torch.long)
    with torch.no_grad():
        memory = model.model.encode(sources)
    return search(model.model, memory, prompt, torch.tensor([limit, limit - 1]))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Transducer:
    return tiny.transducer(MODELS[request.param])


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_nothing_beats_it_and_its_width_changes_nothing(model: Transducer, exponent: float) -> None:
    normalisation = PowerNormalisation(exponent=exponent)
    one, many = (
        found(model, Exact(width=width, nodes=20_000, n_best=2, normalisation=normalisation), 4)
        for width in (1, 16)
    )
    assert one.bound is not None
    assert torch.equal(one.bound, one.scores[:, 0])
    assert one.tokens.tolist() == many.tokens.tolist()
    torch.testing.assert_close(one.scores, many.scores)
    torch.testing.assert_close(one.token_log_probs.sum(2), one.log_probs)
    for width in (1, 2, 5):
        beam = found(model, Beam(width=width, normalisation=normalisation), 4)
        over = beam.finished[:, 0]
        assert (beam.scores[over, 0] <= one.scores[over, 0] + 1e-4).all()


def test_a_larger_budget_never_proves_less(model: Transducer) -> None:
    results = [found(model, Exact(nodes=nodes)) for nodes in (1, 4, 16, 64, 256)]
    for less, more in itertools.pairwise(results):
        assert less.bound is not None
        assert more.bound is not None
        assert (more.bound <= less.bound + 1e-5).all()
        assert (more.scores >= less.scores - 1e-5)[less.finished].all()


def test_time_is_a_budget_too() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    hasty = found(model, Exact(seconds=1e-9))
    assert (hasty.lengths <= 1).all()  # what follows the prompt is known, and nothing more
    assert hasty.bound is not None
    assert (hasty.bound > hasty.scores[:, 0]).any()


def test_the_budget_counts_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    read, extend = list[int](), model.model.extend

    def counted(tokens: Tensor, state: Any) -> Any:
        read.append(len(tokens))
        return extend(tokens, state)

    monkeypatch.setattr(model.model, "extend", counted)
    found(model, Exact(nodes=7, width=4), 9)
    assert read[0] == 2  # the prompts of both sources
    assert sum(read[1:]) <= 2 * 7
    assert max(read[1:]) <= 4


def test_search_errors_are_found() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    greedy, exact = found(model, Greedy()), found(model, Exact())
    wanted = exact.scores[:, 0] > greedy.scores[:, 0] + 1e-4
    assert search_errors(greedy, exact).tolist() == (wanted | ~greedy.finished[:, 0]).tolist()
    assert not search_errors(exact, exact).any()
    worse = exact._replace(scores=exact.scores - 1.0)
    assert search_errors(worse, exact).all()
    cut = exact._replace(finished=torch.zeros_like(exact.finished))
    assert search_errors(cut, exact).all()
    assert not search_errors(exact, cut).any()


def test_an_answer_carries_its_proof() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    proven, open_ = (model("abc", Exact(nodes=nodes)) for nodes in (100_000, 1))
    assert proven.proven
    assert proven.bound == proven.score == pytest.approx(proven.log_prob)
    assert not open_.proven
    assert open_.bound is not None
    assert open_.bound >= proven.score
    unknown = model("abc", Greedy())
    assert unknown.bound is None
    assert not unknown.proven


def test_it_has_alternatives() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    answer = model("abc", Exact(), alternatives=3)
    scores = [answer.score, *(other.score for other in answer.alternatives)]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
