"""Judging a model on dev: a loss that is a mean over tokens, and which score decides."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from transduce.data.batch import Batch, Example
from transduce.evaluate import ExactMatchBlueprint, Score
from transduce.nn.dropout import Dropout
from transduce.recipe.validate import judge, loss, predict_and_score, sample_records, spread
from transduce.search import Greedy
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS
from transduce.train.precision import Precision

CPU, FP32 = torch.device("cpu"), Precision(torch.float32, "test")
PAIRS = [("abc", "cba"), ("b", "b"), ("dab", "b"), ("a cab", "bacaabc")]


@pytest.mark.parametrize("name", tiny.MODELS)
def test_the_loss_is_the_mean_over_target_tokens_however_they_are_batched(name: str) -> None:
    model = tiny.transducer(tiny.MODELS[name])
    forced = model.force(*zip(*PAIRS, strict=True))
    logs = [token.log_prob for tokens in forced for token in tokens]
    wanted = -sum(logs) / len(logs)

    def batch(*rows: int) -> Batch:
        sources = [torch.tensor([*model.source.encode(PAIRS[row][0]), EOS]) for row in rows]
        targets = [torch.tensor([BOS, *model.target.encode(PAIRS[row][1]), EOS]) for row in rows]
        stacked = {"source": Sequences.stack(sources)}
        return Batch(stacked, Sequences.stack(targets), torch.tensor(rows))

    for cuts in ([(0, 1, 2, 3)], [(0,), (1,), (2,), (3,)], [(3, 1), (0, 2)]):
        model.model.train()
        found = loss(model.model, (batch(*cut) for cut in cuts), CPU, FP32).mean
        assert found == pytest.approx(wanted, rel=1e-4)
    assert not any(part.training for part in model.model.modules() if isinstance(part, Dropout))


def test_predictions_are_scored_against_all_references() -> None:
    model = tiny.transducer(tiny.MODELS["recurrent"])
    sources = ["abc", "bcd", "dab"]
    answers = [answer.text for answer in model(sources, Greedy())]
    references = [("never", answers[0]), (answers[1],), ("never",)]
    examples = [
        Example({"source": source}, refs, "")
        for source, refs in zip(sources, references, strict=True)
    ]
    texts, (score,) = predict_and_score(
        model, examples, [ExactMatchBlueprint().build()], Greedy(), bootstrap=50
    )
    assert texts == answers
    assert score.value == pytest.approx(200 / 3)
    assert score.low is not None


def test_the_first_metric_decides_and_higher_is_always_better() -> None:
    exact = Score("Exact match", 75.0, None, None, "", 1, higher_is_better=True)
    errors = Score("CER", 12.0, None, None, "", 1, higher_is_better=False)
    by_name, quality = judge(0.5, [exact, errors], ["exact", "cer"], "metric")
    assert by_name == {"loss": 0.5, "perplexity": math.exp(0.5), "exact": 75.0, "cer": 12.0}
    assert quality == 75.0
    assert judge(0.5, [errors, exact], ["cer", "exact"], "metric")[1] == -12.0
    assert judge(0.5, [exact, errors], ["exact", "cer"], "loss")[1] == -0.5


def test_a_hopeless_loss_has_a_perplexity_all_the_same() -> None:
    assert math.isfinite(judge(1e6, [], [], "loss")[0]["perplexity"])


def test_places_are_spread_evenly_from_the_first_to_the_last() -> None:
    assert spread(10, 0) == spread(10, 10) == spread(10, 99) == list(range(10))
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(10, 1) == [0]
    for wanted in range(1, 50):
        places = spread(50, wanted)
        assert len(set(places)) == wanted
        assert places == sorted(places)


def test_samples_show_what_was_asked_and_what_came() -> None:
    examples = [Example({"source": f"s{n}"}, (f"r{n}", "other"), "") for n in range(5)]
    predictions = [f"p{n}" for n in range(5)]
    assert sample_records(7, examples, predictions, 2) == [
        {"step": 7, "index": n, "source": f"s{n}", "references": [f"r{n}", "other"],
         "prediction": f"p{n}"}
        for n in (0, 4)
    ]  # fmt: skip
    assert sample_records(7, examples, predictions, 0) == []
