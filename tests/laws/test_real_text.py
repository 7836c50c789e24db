"""What you get does not depend on the batch: real models, real text, any size and any order."""

from __future__ import annotations

import gzip
import random
from typing import Final

import pytest
import torch

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.quickstart import HERE
from transduce.recipe import train
from transduce.result import Result
from transduce.search import Beam, Greedy, SearchBlueprint
from transduce.train.progress import Show
from transduce.transducer import Transducer

COUNT: Final = 200
MODELS: Final = {
    "recurrent": "{kind: recurrent, cell: gru, embedding: 64, width: 96, dropout: 0}",
    "transformer": "{kind: transformer, width: 64, layers: 1, heads: 4, inner: 128, dropout: 0}",
}
CHANGES: Final = (
    "data.test=null",
    "text.source.tokens.size=500",
    "train.max_steps=300",
    "train.batch.tokens=800",
    "train.optimiser.rate=1e-2",
    "train.precision=fp32",
    "train.threads=1",
    "validation.every=300",
    "validation.examples=10",
    "metrics=[exact]",
    "search=greedy",
)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Transducer:
    """A model that has learned from the quickstart's restaurants for some seconds."""
    run = tmp_path_factory.mktemp(request.param)
    part = MODELS[request.param]
    changes = [*CHANGES, f"model.encoder={part}", f"model.decoder={part}"]
    experiment = read(HERE / "data-to-text.yaml", Experiment, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSDUCE_CACHE", str(run / "cache"))
        assert train(experiment, HERE, run, Show(quiet=True)) == 0
    return Transducer.load(run, device="cpu")


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """Different dev sources, as they stand in the file."""
    rows = gzip.decompress((HERE / "e2e" / "dev.tsv.gz").read_bytes()).decode().split("\n")
    found = list(dict.fromkeys(row.split("\t")[0] for row in rows if row))[:COUNT]
    assert len(found) == COUNT
    return found


def answers(
    model: Transducer, sources: list[str], search: SearchBlueprint, rows: int
) -> dict[str, Result]:
    model.rows = rows
    return {answer.source: answer for answer in model.predict(sources, search)}


@pytest.mark.parametrize("search", [Greedy(), Beam(width=5)], ids=lambda search: search.kind)
def test_the_answer_does_not_depend_on_the_batch(
    model: Transducer, sources: list[str], search: SearchBlueprint
) -> None:
    alone = answers(model, sources, search, rows=1)
    assert len({answer.text for answer in alone.values()}) > COUNT / 10, "it has learned something"
    in_order = sorted(sources, key=len)
    shuffled = random.Random(0).sample(sources, COUNT)
    for rows, lines in ((7, shuffled), (64, in_order), (64, shuffled)):
        found = answers(model, lines, search, rows)
        odd = [source for source in sources if found[source].text != alone[source].text]
        assert not odd, f"{len(odd)} differ in batches of {rows}, such as {odd[0]!r}"
        assert all(found[source].finished == alone[source].finished for source in sources)
        scores = torch.tensor([[found[s].score, alone[s].score] for s in sources])
        torch.testing.assert_close(scores[:, 0], scores[:, 1], rtol=1e-4, atol=1e-4)
