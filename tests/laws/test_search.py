"""The laws over small scorers; beam search against a reference that keeps no secrets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from toys import EOS, Recurrent, Table, Task, task, with_holes, with_ties, without_eos

from transduce import testing, tree
from transduce.problem import Problem
from transduce.search import (
    Beam,
    DiverseBeam,
    Epsilon,
    GnmtNormalisation,
    Greedy,
    LengthNormalisation,
    MinP,
    PowerNormalisation,
    RewardNormalisation,
    Sample,
    Scorer,
    SearchBlueprint,
    StochasticBeam,
    TopK,
    TopP,
    Typical,
    force,
)
from transduce.sequences import Sequences
from transduce.text.vocabulary import EOS as TEXT_EOS

MAKERS: dict[str, Callable[[int], Any]] = {
    "table": Table,
    "recurrent": Recurrent,
    "without eos": without_eos,
    "with holes": with_holes,
    "with ties": with_ties,
}
SEARCHES: list[SearchBlueprint] = [
    Greedy(),
    Beam(width=1),
    Beam(width=2, n_best=2),
    Beam(width=5, n_best=3, normalisation=PowerNormalisation(exponent=0.0)),
    Beam(width=7, n_best=7),
    Sample(),
    Sample(samples=4, temperature=0.7, truncations=(TopK(count=6), TopP(mass=0.8))),
    Sample(samples=3, truncations=(Typical(), MinP(), Epsilon()), seed=1),
    StochasticBeam(width=1),
    StochasticBeam(width=6, seed=2),
    DiverseBeam(groups=4, width=1),
    DiverseBeam(groups=3, width=3, penalty=1.5),
    Beam(width=3, n_best=2, normalisation=RewardNormalisation(), patience=2.0),
    Beam(width=4, n_best=2, normalisation=GnmtNormalisation(), patience=0.5),
]
NORMALISATIONS: list[LengthNormalisation] = [
    PowerNormalisation(exponent=0.0),
    PowerNormalisation(exponent=0.6),
    PowerNormalisation(exponent=1.0),
    GnmtNormalisation(),
    RewardNormalisation(reward=0.0),
    RewardNormalisation(reward=0.7),
    RewardNormalisation(reward=4.0),
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


def test_only_what_is_decided_is_shown() -> None:
    scorer, given = Table(9), task(1, 9, 9)
    asked = scorer, scorer.encode(given.sources), given.prompt, given.limit
    parts = list(Greedy().unfold(*asked))
    assert [len(part) for part in parts] == [1] * int(Greedy()(*asked).lengths)
    assert list(Beam(width=1).unfold(*asked)) == parts
    with pytest.raises(Problem, match=r"search.kind: beam: it decides on whole answers"):
        list(Beam(width=2).unfold(*asked))


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


def test_nothing_to_say() -> None:
    scorer, given = Table(6), task(3, 6, 4)
    scorer.scores[:] = -torch.inf
    sample = Sample(samples=2, truncations=(TopK(),))
    for search in (Greedy(), Beam(width=3, n_best=2), sample, StochasticBeam(), DiverseBeam()):
        found = search(scorer, scorer.encode(given.sources), given.prompt, given.limit)
        assert not found.lengths.any()
        assert not found.finished.any()
        assert (found.scores == -torch.inf).all()
        assert (found.log_probs == -torch.inf).all()


class Script(Table):
    """What follows depends on the number of tokens read, and on nothing else."""

    def __init__(self, steps: list[dict[int, float]]) -> None:
        super().__init__(4)
        self.steps = torch.full((len(steps) + 1, 4), -torch.inf)
        for step, probabilities in enumerate(steps):
            for symbol, probability in probabilities.items():
                self.steps[step, symbol] = math.log(probability)

    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        read = state.prefix[:, None] + torch.arange(tokens.shape[1])
        return self.steps[read], state._replace(prefix=state.prefix + tokens.shape[1])


def answers(search: SearchBlueprint, scorer: Scorer, limit: int) -> tuple[list[list[int]], Tensor]:
    """Return the strings of the one source there is, and whether each has finished."""
    given = task(1, 4, 4)
    memory, most = scorer.encode(given.sources), torch.tensor([limit])
    found = search(scorer, memory, given.prompt[:, :1], most)
    lengths = found.lengths[0].tolist()
    return [found.tokens[0, k, :n].tolist() for k, n in enumerate(lengths)], found.finished[0]


@pytest.mark.parametrize(
    "search", [Greedy(), Beam(width=3), Sample(), StochasticBeam(), DiverseBeam()], ids=str
)
def test_a_dead_end_keeps_what_came_before(search: SearchBlueprint) -> None:
    scorer = Script([{3: 1.0}, {3: 0.5}, {}])
    for limit, wanted in ((6, [3, 3]), (1, [3])):
        strings, finished = answers(search, scorer, limit)
        assert [string for string in strings if string] == [wanted]
        assert not finished.any()


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
    [Greedy(), Beam(width=2), Sample(truncations=(Typical(), TopP())), StochasticBeam()],
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
