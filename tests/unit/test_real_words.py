"""Real words in batches of any size and order: no model may tell the difference."""

from __future__ import annotations

import gzip
import random
from typing import Final, NamedTuple

import pytest
import tiny
import torch

from transduce.quickstart import HERE
from transduce.result import Result
from transduce.search import Beam, Greedy, Sample, SearchBlueprint, StochasticBeam
from transduce.transducer import Transducer

COUNT: Final = 1000
SIZES: Final = {1: 60, 3: 120, 16: 400, 64: COUNT, 256: COUNT}  # of batches: words to ask
MODELS: Final = ("recurrent", "transformer", "copying")
SEARCHES: Final = (Greedy(), Beam(width=3))
MORE: Final = (Sample(samples=3), StochasticBeam(width=4), Beam(width=10, n_best=3))
# Answers are the same to the letter. Scores are those of random models that are sure of themselves,
# which multiply what rounding does; those of trained ones differ by 1e-4 (test_real_text.py).
TOLERANCE: Final = 5e-3


class Asked(NamedTuple):
    """A model, and what it has answered so far in batches of 64 sorted by length."""

    model: Transducer
    known: dict[tuple[str, int], dict[str, Result]]


def words(count: int) -> list[str]:
    """Return words of the dictionary that comes along, from all of it."""
    rows = gzip.decompress((HERE / "cmudict" / "train.tsv.gz").read_bytes()).decode().split("\n")
    found = list(dict.fromkeys(row.split("\t")[0] for row in rows if row))
    return found[:: len(found) // count][:count]


@pytest.fixture(scope="module", params=MODELS)
def asked(request: pytest.FixtureRequest) -> Asked:
    """A random model, sure of itself, which reads letters and writes few of them."""
    models = tiny.MODELS | {"copying": tiny.COPYING}
    given = words(COUNT)
    made = tiny.bundle(models[request.param], texts=(given, given), longest=(0.5, 3))
    return Asked(Transducer(made, torch.device("cpu")), {})


def _all(results: list[Result]) -> list[Result]:
    return [one for answer in results for one in (answer, *answer.alternatives)]


def check(asked: Asked, search: SearchBlueprint, count: int, rows: int) -> None:
    """Compare answers in batches of ``rows``, in any order, with those known."""
    (model, known), given = asked, words(count)
    key = str(search), count
    if key not in known:
        model.rows = 64
        answers = model(sorted(given, key=len), search)
        known[key] = {answer.source: answer for answer in answers}
        assert len({answer.text for answer in answers}) > count / 5, "it tells words apart"
    model.rows = rows
    shuffled = random.Random(rows).sample(given, count)
    # Blocks of lines that are answered together: here in batches with others than there.
    found = list(model.predict(shuffled, search, ahead=max(50, 3 * rows)))
    wanted = [known[key][answer.source] for answer in found]
    pairs = list(zip(*(_all(results) for results in (found, wanted)), strict=True))
    odd = [(a, b) for a, b in pairs if (a.text, a.finished) != (b.text, b.finished)]
    assert not odd, f"{len(odd)} differ in batches of {rows}, such as {odd[0]}"
    scores = torch.tensor([[a.score, b.score] for a, b in pairs])
    torch.testing.assert_close(scores[:, 0], scores[:, 1], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.kind)
def test_words_in_any_batch(asked: Asked, search: SearchBlueprint, rows: int) -> None:
    check(asked, search, SIZES[rows], rows)


@pytest.mark.slow
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("search", [*SEARCHES, *MORE], ids=str)
def test_all_words_in_any_batch(asked: Asked, search: SearchBlueprint, rows: int) -> None:
    check(asked, search, COUNT, rows)
