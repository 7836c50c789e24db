"""Beam search against a reference that keeps no secrets, and what its settings promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from toys import EOS, MAKERS, NORMALISATIONS, Script, Table, Task, answers, task

from transduce import testing
from transduce.search import (
    Beam,
    GnmtNormalisation,
    LengthNormalisation,
    PowerNormalisation,
    RewardNormalisation,
    Scorer,
)
from transduce.sequences import Sequences


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=repr)
def test_wide_beam_is_exact(
    maker: Callable[[int], Any], normalisation: LengthNormalisation
) -> None:
    testing.check_beam_exact(maker(5), *task(6, 5, 4), normalisation)


class Live(NamedTuple):
    log_prob: float
    tokens: tuple[int, ...]


def reference_beam(search: Beam, scorer: Scorer, given: Task, row: int) -> list[Live]:
    """Beam search for one source: one hypothesis at a time, every prefix read from the start."""
    alone = {n: Sequences(s.data[[row]], s.lengths[[row]]) for n, s in given.sources.items()}
    memory, limit = scorer.encode(alone), int(given.limit[row])
    live, finished, last = [Live(0.0, ())], [], [Live(0.0, ())]
    for _ in range(limit):
        candidates = []
        for hypothesis in live:
            read = torch.tensor([given.prompt[row].tolist() + list(hypothesis.tokens)])
            log_probs = scorer.extend(read, scorer.start(memory))[0][0, -1]
            for symbol in log_probs.sort(descending=True, stable=True).indices.tolist():
                total = hypothesis.log_prob + float(log_probs[symbol])
                candidates.append(Live(total, (*hypothesis.tokens, symbol)))
        possible = [c for c in candidates if c.log_prob > -math.inf]
        ranked = sorted(possible, key=lambda c: -c.log_prob)
        finished += [c for c in ranked[: search.width] if c.tokens[-1] == EOS]
        live = [c for c in ranked if c.tokens[-1] != EOS][: search.width]
        last = live or last
        if not live or len(finished) >= search.width * search.patience:
            break

    def score(hypothesis: Live) -> float:
        log_prob, length = torch.tensor(hypothesis.log_prob), torch.tensor(len(hypothesis.tokens))
        return float(search.normalisation.score(log_prob, length))

    finished.sort(key=score, reverse=True)
    spare = last if not finished or len(last[0].tokens) == limit else []
    return [c for c in finished + spare if c.tokens][: search.n_best]


@pytest.mark.parametrize("name", ["table", "recurrent", "without eos", "with holes"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=repr)
@pytest.mark.parametrize(
    ("width", "n_best", "patience"), [(1, 1, 1), (2, 1, 1), (3, 3, 1), (6, 4, 1), (2, 2, 3)]
)
def test_beam_is_the_reference(
    name: str, normalisation: LengthNormalisation, width: int, n_best: int, patience: float
) -> None:
    # The reference stops only when enough hypotheses have finished, so this also shows that
    # stopping earlier than that changes nothing.
    scorer, given = MAKERS[name](8), task(9, 8, 9, seed=width)
    search = Beam(width=width, n_best=n_best, normalisation=normalisation, patience=patience)
    found = search(scorer, scorer.encode(given.sources), given.prompt, given.limit)
    for row in range(len(given.limit)):
        wanted = reference_beam(search, scorer, given, row)
        lengths = found.lengths[row].tolist()
        tokens = [found.tokens[row, k, :n].tolist() for k, n in enumerate(lengths) if n]
        assert tokens == [list(hypothesis.tokens) for hypothesis in wanted]
        log_probs = torch.tensor([hypothesis.log_prob for hypothesis in wanted])
        torch.testing.assert_close(found.log_probs[row, : len(wanted)], log_probs)


@pytest.mark.parametrize(
    "normalisation",
    [
        PowerNormalisation(exponent=0.0),
        GnmtNormalisation(exponent=0.2),
        RewardNormalisation(reward=0.02),
    ],
    ids=repr,
)
def test_stopping_early_saves_steps(
    normalisation: LengthNormalisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, given = Table(9), task(30, 9, 2)
    limit = torch.full_like(given.limit, 60)
    memory = scorer.encode(given.sources)
    search = Beam(width=4, normalisation=normalisation)
    early = search(scorer, memory, given.prompt, limit)
    monkeypatch.setattr(
        type(normalisation), "bound", lambda self, log_probs, limits: torch.full_like(log_probs, 99)
    )
    late = search(scorer, memory, given.prompt, limit)
    assert early.trace is not None
    assert late.trace is not None
    weighed = [(trace.log_probs > -torch.inf).sum() for trace in (early.trace, late.trace)]
    assert weighed[0] < 0.8 * weighed[1]
    assert early.tokens.tolist() == late.tokens.tolist()


def test_trace_holds_every_hypothesis() -> None:
    scorer, given = Table(7), task(12, 7, 9)
    found = Beam(width=4, n_best=4)(scorer, scorer.encode(given.sources), given.prompt, given.limit)
    trace = found.trace
    assert trace is not None
    for row, most in enumerate(given.limit.tolist()):
        paths: dict[int, tuple[list[int], float]] = {slot: ([], 0.0) for slot in range(4)}
        finished = []
        for step in range(min(most, len(trace.tokens))):
            candidates = []
            for c, token in enumerate(trace.tokens[step, row].tolist()):
                tokens, total = paths[int(trace.parents[step, row, c])]
                total += float(trace.token_log_probs[step, row, c])
                if trace.log_probs[step, row, c] > -torch.inf:
                    assert total == pytest.approx(float(trace.log_probs[step, row, c]), abs=1e-4)
                candidates.append(([*tokens, token], total))
                if trace.finished[step, row, c]:
                    finished.append([*tokens, token])
            paths = {k: candidates[c] for k, c in enumerate(trace.slots[step, row].tolist())}
        ours = [found.tokens[row, k, :n].tolist() for k, n in enumerate(found.lengths[row])]
        done = found.finished[row].tolist()
        assert all(tokens in finished for tokens, over in zip(ours, done, strict=True) if over)


@pytest.mark.parametrize("limit", [2, 4])
def test_where_all_must_end_nothing_else_is_returned(limit: int) -> None:
    scorer = Script([{3: 0.5, 0: 0.5}, {EOS: 1.0}])
    strings, finished = answers(Beam(width=3, n_best=3), scorer, limit)
    assert strings == [[0, EOS], [3, EOS], []]
    assert finished.tolist() == [True, True, False]


def test_an_answer_that_pays_off_late_is_waited_for() -> None:
    # The mean of the long answer overtakes that of the short one with its last token only.
    scorer = Script([{EOS: 0.5, 3: 0.05}, *[{3: 1.0}] * 3, {EOS: 1.0}])
    assert answers(Beam(width=2), scorer, 5)[0] == [[3, 3, 3, 3, EOS]]
    scorer = Script([{EOS: 0.5, 3: 0.05}, *[{3: 1.0}] * 2, {EOS: 1.0}])
    assert answers(Beam(width=2), scorer, 5)[0] == [[EOS]]


def test_more_answers_than_hypotheses_is_an_error() -> None:
    with pytest.raises(ValueError, match="raise width"):
        Beam(width=3, n_best=4)


def test_patience_below_what_is_wanted_is_an_error() -> None:
    with pytest.raises(ValueError, match="raise patience"):
        Beam(width=4, n_best=3, patience=0.5)
    assert Beam(width=10, patience=1.1).enough == 11


def test_patience_finds_what_finishes_late() -> None:
    # The likeliest string is the third to finish.
    scorer = Script([{EOS: 0.3, 3: 0.7}, {EOS: 0.1, 3: 0.9}, {EOS: 1.0}])
    plain = PowerNormalisation(exponent=0.0)
    hasty = Beam(width=2, normalisation=plain)
    assert answers(hasty, scorer, 5)[0] == [[EOS]]
    patient = Beam(width=2, normalisation=plain, patience=1.5)
    assert answers(patient, scorer, 5)[0] == [[3, 3, EOS]]


def test_length_normalisations_say_what_they_say() -> None:
    log_prob, length = torch.tensor(-3.0), torch.tensor(7)
    for normalisation, wanted in (
        (PowerNormalisation(exponent=2.0), -3 / 49),
        (GnmtNormalisation(exponent=2.0), -3 / 4),
        (RewardNormalisation(reward=0.5), 0.5),
    ):
        assert float(normalisation.score(log_prob, length)) == pytest.approx(wanted)
