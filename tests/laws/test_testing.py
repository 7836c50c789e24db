"""Each law catches a scorer or search that breaks it, and says which law it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import Code, Recurrent, RecurrentState, Table, TableState, Vectors

from transduce import testing
from transduce.search import Beam, Draft, Greedy, Hypotheses, PowerNormalisation, Scorer
from transduce.search.draft import Certain
from transduce.search.paths import Paths
from transduce.search.stepwise import Move
from transduce.sequences import Sequences

TOKENS = torch.tensor([[1, 4, 5, 3], [1, 3, 3, 4], [1, 5, 4, 3]])
SOURCES = {"source": Sequences.stack([torch.tensor(row) for row in ([4, 5, 2], [2], [3, 2])])}
PROMPT, LIMIT = torch.ones(3, 1, dtype=torch.long), torch.tensor([5, 6, 4])


class NotANumber(Table):
    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, TableState]:
        log_probs, state = super().extend(tokens, state)
        return log_probs.masked_fill(log_probs == log_probs.max(), torch.nan), state


class Logits(Table):
    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, TableState]:
        log_probs, state = super().extend(tokens, state)
        return log_probs + 5, state


class CountsCalls(Table):
    """What it says depends on how many tokens came at once."""

    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, TableState]:
        log_probs, state = super().extend(tokens, state)
        return log_probs - 0.01 * tokens.shape[1], state


class LooksAhead(Table):
    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, TableState]:
        log_probs, state = super().extend(tokens, state)
        return log_probs - 0.01 * tokens.sum(1)[:, None, None], state


class AddsRows(Table):
    """Says something else the more rows a source has."""

    def start(self, memory: Code, width: int = 1, capacity: int | None = None) -> TableState:
        prefix, code = super().start(memory, width)
        return TableState(prefix + width, code)


class MarksRowsAsSources(Table):
    """Keeps what its rows have read where reordering does not reach."""

    def start(self, memory: Code, width: int = 1, capacity: int | None = None) -> Any:
        return Code(torch.zeros_like(memory.of_source).repeat_interleave(width)), memory

    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        prefix, code = state
        log_probs, after = super().extend(tokens, TableState(prefix.of_source, code))
        return log_probs, (Code(after.prefix), code)


class HidesItsSources(Table):
    """Holds the sources outside the state, where they cannot be dropped."""

    def start(self, memory: Code, width: int = 1, capacity: int | None = None) -> Any:
        self.width, self.code = width, memory.of_source
        return super().start(memory, width).prefix

    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        first = Code(self.code[: len(state) // self.width])
        log_probs, after = super().extend(tokens, TableState(state, first))
        return log_probs, after.prefix


class ReadsPadding(Recurrent):
    def encode(self, sources: Mapping[str, Sequences]) -> Vectors:
        memory = super().encode(sources)
        return Vectors(memory.states, torch.ones_like(memory.mask))


class SeesNeighbours(Recurrent):
    """Standardises over the batch."""

    def encode(self, sources: Mapping[str, Sequences]) -> Vectors:
        memory = super().encode(sources)
        real = memory.states[memory.mask]
        return Vectors(memory.states - real.mean(0), memory.mask)


class WritesInPlace(Recurrent):
    def extend(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        log_probs, after = super().extend(tokens, state)
        return log_probs, after._replace(hidden=state.hidden.copy_(after.hidden))


class SharesStorage(Recurrent):
    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        log_probs, after = super().extend(tokens, RecurrentState(*state[:2]))
        return log_probs, (*after, after.hidden)


class MarksPadding(Recurrent):
    """Remembers what is padding, so that room made later counts as real."""

    def encode(self, sources: Mapping[str, Sequences]) -> Vectors:
        memory = super().encode(sources)
        return Vectors(memory.states, ~memory.mask)

    def extend(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        real = Vectors(state.memory.states, ~state.memory.mask)
        log_probs, after = super().extend(tokens, state._replace(memory=real))
        return log_probs, after._replace(memory=state.memory)


@pytest.mark.parametrize(
    ("scorer", "law"),
    [
        (NotANumber(7), "scores"),
        (Logits(7), "scores"),
        (CountsCalls(7), "action"),
        (LooksAhead(7), "causal"),
        (AddsRows(7), "widen"),
        (ReadsPadding(7), "batch mates"),
        (SeesNeighbours(7), "batch mates"),
        (WritesInPlace(7), "persistent"),
        (SharesStorage(7), "storage"),
        (MarksPadding(7), "join"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_every_law_is_checked(scorer: Scorer, law: str) -> None:
    check = {
        "scores": testing.check_scores,
        "action": testing.check_action,
        "causal": testing.check_causal,
        "widen": testing.check_widen,
        "batch mates": testing.check_batch_mates,
        "persistent": testing.check_persistent,
        "storage": testing.check_no_shared_storage,
        "join": testing.check_join,
    }[law]
    with pytest.raises(AssertionError, match=f"^{law}"):
        check(scorer, SOURCES, TOKENS)
    with pytest.raises(AssertionError):
        testing.check_scorer(scorer, SOURCES, TOKENS)


def test_reorder_and_keep_are_checked() -> None:
    with pytest.raises(AssertionError, match="reorder: "):
        testing.check_reorder(MarksRowsAsSources(7), SOURCES, TOKENS)
    with pytest.raises(AssertionError, match="keep: "):
        testing.check_keep(HidesItsSources(7), SOURCES, TOKENS)


def test_normalised_is_checked() -> None:
    testing.check_normalised(Table(7), SOURCES, TOKENS)
    with pytest.raises(AssertionError, match="normalised: "):
        testing.check_normalised(CountsCalls(7), SOURCES, TOKENS)


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (lambda h: h._replace(token_log_probs=h.token_log_probs - 0.1), "forced"),
        (lambda h: h._replace(log_probs=h.log_probs - 0.1), "forced"),
        (lambda h: h._replace(finished=~h.finished), "hypotheses"),
        (lambda h: h._replace(scores=h.scores.flip(1)), "hypotheses"),
        (lambda h: h._replace(tokens=h.tokens[:, :1].expand_as(h.tokens)), "hypotheses"),
        (lambda h: h._replace(scores=h.scores - len(h.scores)), "batch mates"),
        (lambda h: h._replace(tokens=h.tokens + (len(h.scores) == 1)), "batch mates"),
    ],
)
def test_every_law_of_searches_is_checked(
    change: Callable[[Hypotheses], Hypotheses], law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, right = Beam(width=3, n_best=3), Beam.__call__
    testing.check_search(search, Table(7), SOURCES, PROMPT, LIMIT)
    monkeypatch.setattr(Beam, "__call__", lambda self, *given: change(right(self, *given)))
    check = {
        "forced": testing.check_search_matches_forced,
        "hypotheses": testing.check_hypotheses,
        "batch mates": testing.check_search_batch_mates,
    }[law]
    with pytest.raises(AssertionError, match=f"^{law}"):
        check(search, Table(7), SOURCES, PROMPT, LIMIT)


def test_a_beam_that_is_not_greedy_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Beam(width=4)
    monkeypatch.setattr(Beam, "__call__", partial(Beam.__call__, wide))
    with pytest.raises(AssertionError, match="beam 1: "):
        testing.check_beam_one_is_greedy(Table(7), SOURCES, PROMPT, LIMIT)


def test_parts_that_do_not_make_the_answer_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    testing.check_unfold(Greedy(), Table(7), SOURCES, PROMPT, LIMIT)
    monkeypatch.setattr(Greedy, "unfold", lambda self, *given: iter([[3], [9]]))
    with pytest.raises(AssertionError, match="unfold: "):
        testing.check_unfold(Greedy(), Table(7), SOURCES, PROMPT, LIMIT)


def test_notes_that_change_where_nobody_looks_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    testing.check_asked_seldom(Greedy(), Table(7), SOURCES, PROMPT, LIMIT)
    right = Greedy.weigh

    def counts_on(self: Greedy, notes: Paths, values: Tensor, ids: Tensor) -> Move:
        move = right(self, notes, values, ids)
        return move._replace(notes=move.notes._replace(length=notes.length.add_(1)))

    monkeypatch.setattr(Greedy, "weigh", counts_on)
    with pytest.raises(AssertionError, match="asked seldom: "):
        testing.check_asked_seldom(Greedy(), Table(7), SOURCES, PROMPT, LIMIT)


def test_a_draft_that_is_believed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quotes(Table):
        def quote(self, memory: object) -> Sequences:
            return SOURCES["source"]

    testing.check_draft_is_greedy(Draft(), Quotes(7), SOURCES, PROMPT, LIMIT)
    monkeypatch.setattr(Draft, "_check", lambda self, draft, *best: (Certain([4], [-1.0]), True))
    with pytest.raises(AssertionError, match="draft: "):
        testing.check_draft_is_greedy(Draft(), Quotes(7), SOURCES, PROMPT, LIMIT)


def test_a_beam_that_is_not_exact_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Beam(width=5, n_best=5)
    monkeypatch.setattr(Beam, "__call__", partial(Beam.__call__, narrow))
    with pytest.raises(AssertionError, match="exact: "):
        testing.check_beam_exact(Table(7), SOURCES, PROMPT, LIMIT - 2)


def bound_too_low(self: object, log_probs: Tensor, limits: Tensor) -> Tensor:
    return log_probs - 2.0


def test_an_exact_search_that_is_not_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    testing.check_exact(Table(6), SOURCES, PROMPT, LIMIT - 2)
    monkeypatch.setattr(PowerNormalisation, "bound", bound_too_low)
    with pytest.raises(AssertionError, match="exact: "):
        testing.check_exact(Table(6), SOURCES, PROMPT, LIMIT - 2)


def test_brute_force_adds_up() -> None:
    every = testing.brute_force(Table(4), SOURCES, PROMPT, LIMIT, Greedy().eos)
    for known, most in zip(every, LIMIT.tolist(), strict=True):
        assert len(known) == sum(3**n for n in range(most))
        assert sum(torch.tensor(list(known.values())).exp()) < 1
