"""Fewest and most tokens: the laws of a scorer that forbids the end, and what searches find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_search import SEARCHES
from toys import EOS, MAKERS, Table, task

from transduce import testing
from transduce.search import Length, SearchBlueprint

LONG = Length(least=3, least_ratio=0.9)


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_minimum_is_a_scorer(make: Callable[[int], Any]) -> None:
    tokens = torch.randint(0, 6, (5, 4), generator=torch.Generator().manual_seed(3))
    testing.check_scorer(LONG.over(make(6)), task(5, 6, 4).sources, tokens)


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_every_search_keeps_the_minimum(
    make: Callable[[int], Any], search: SearchBlueprint
) -> None:
    given = task(11, 9, 8)
    sources = given.sources["source"]
    limit = LONG.limit(sources.lengths, given.limit)
    prompt = given.prompt[:, :1]
    scorer = LONG.over(make(9))
    testing.check_search(search, scorer, given.sources, prompt, limit)
    found = search(scorer, scorer.encode(given.sources), prompt, limit)
    for row, fewest in enumerate(LONG.fewest(sources.lengths).tolist()):
        for length, finished in zip(found.lengths[row], found.finished[row], strict=True):
            assert length >= fewest or not finished


def test_only_the_end_is_forbidden_and_only_too_early() -> None:
    given, table = task(6, 7, 4), Table(7)
    tokens = torch.randint(3, 7, (6, 5), generator=torch.Generator().manual_seed(0))
    scorer = Length(least=4).over(table)
    found = scorer.extend(tokens, scorer.start(scorer.encode(given.sources)))[0]
    wanted = table.extend(tokens, table.start(table.encode(given.sources)))[0]
    # Read are the beginning and at first no token, so the end would be the first token, and so on.
    assert found[..., EOS].isinf().tolist() == [[True] * 3 + [False] * 2] * 6
    wanted[:, :3, EOS] = -torch.inf
    assert torch.equal(found, wanted)


def test_what_asks_for_nothing_costs_nothing() -> None:
    table = Table(6)
    assert Length().over(table) is table
    assert Length(most=4).over(table) is table


def test_limits_follow_the_source() -> None:
    lengths, learned = torch.tensor([1, 4, 10]), torch.tensor([9, 9, 9])
    for length, least, most in (
        (Length(), [1, 1, 1], [9, 9, 9]),
        (Length(least=3), [3, 3, 3], [9, 9, 9]),
        (Length(least=12), [12, 12, 12], [12, 12, 12]),
        (Length(most=20), [1, 1, 1], [20, 20, 20]),
        (Length(most_ratio=1.5), [1, 1, 1], [2, 6, 15]),
        (Length(most=8, most_ratio=1.5), [1, 1, 1], [2, 6, 8]),
        (Length(least=3, least_ratio=0.5, most_ratio=1.0), [3, 3, 5], [3, 4, 10]),
    ):
        assert length.fewest(lengths).tolist() == least
        assert length.limit(lengths, learned).tolist() == most


@pytest.mark.parametrize("unit", ["", "_ratio"])
def test_a_minimum_above_the_maximum_is_refused(unit: str) -> None:
    with pytest.raises(ValueError, match=f"least{unit} .* is above most{unit} .* lower least"):
        Length.model_validate({f"least{unit}": 3, f"most{unit}": 2})
