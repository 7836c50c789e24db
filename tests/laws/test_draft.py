"""Drafts from the source change the number of steps, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Float, Int
from test_models import DECODERS, case
from torch import Tensor
from toys import EOS, MAKERS, Recurrent, Table, task

from transduce import testing
from transduce.problem import Problem
from transduce.search import Aided, Draft, Greedy, Length, Scorer, Speculative
from transduce.sequences import Sequences
from transduce.tree import PerSource

DRAFTS = [Draft(), Draft(span=1), Draft(span=3, match=1), Draft(span=5, match=4)]


@dataclass(frozen=True)
class Known(PerSource):
    symbols: Sequences


class CopyingMemory(NamedTuple):
    inner: Any
    known: Known


class CopyingState(NamedTuple):
    inner: Any
    known: Known
    read: Int[Tensor, "N"]


class Copying:
    """Likes to say what stands in the source at its place, as far as another scorer lets it."""

    def __init__(self, scorer: Scorer, love: float) -> None:
        self.scorer, self.love, self.calls = scorer, love, list[int]()

    def encode(self, sources: Mapping[str, Sequences]) -> CopyingMemory:
        return CopyingMemory(self.scorer.encode(sources), Known(sources["source"]))

    def quote(self, memory: CopyingMemory) -> Sequences:
        return memory.known.symbols

    def start(
        self, memory: CopyingMemory, width: int = 1, capacity: int | None = None
    ) -> CopyingState:
        rows = torch.zeros(len(memory.known.symbols.lengths) * width, dtype=torch.long)
        return CopyingState(self.scorer.start(memory.inner, width, capacity), memory.known, rows)

    def extend(
        self, tokens: Int[Tensor, "N T"], state: CopyingState
    ) -> tuple[Float[Tensor, "N T V"], CopyingState]:
        self.calls.append(tokens.shape[1])
        log_probs, inner = self.scorer.extend(tokens, state.inner)
        source = state.known.symbols
        width = len(tokens) // max(1, len(source.lengths))
        place = state.read[:, None] + torch.arange(tokens.shape[1])
        lengths = source.lengths.repeat_interleave(width)[:, None]
        said = source.data.repeat_interleave(width, 0).gather(1, torch.minimum(place, lengths - 1))
        bonus = torch.zeros_like(log_probs).scatter_(2, said[:, :, None], self.love)
        scores = (log_probs + bonus).log_softmax(2).nan_to_num(nan=-torch.inf)
        return scores, CopyingState(inner, state.known, state.read + tokens.shape[1])


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("love", [0.0, 3.0, 50.0])
@pytest.mark.parametrize("search", DRAFTS, ids=str)
def test_a_draft_finds_what_greedy_search_finds(
    make: Callable[[int], Any], love: float, search: Draft
) -> None:
    scorer, given = Copying(make(9), love), task(20, 9, 12)
    prompt = given.prompt[:, :1]
    testing.check_search(search, scorer, given.sources, prompt, given.limit)
    for read in (prompt, given.prompt):
        testing.check_draft_is_greedy(search, scorer, given.sources, read, given.limit)
    least = Length(least=3).over(scorer)
    testing.check_draft_is_greedy(search, least, given.sources, prompt, given.limit)


def calls(search: Draft | Greedy, scorer: Copying, source: list[int], most: int) -> list[int]:
    """Return how many tokens were read at each step."""
    scorer.calls.clear()
    memory = scorer.encode({"source": Sequences.stack([torch.tensor([*source, EOS])])})
    search(scorer, memory, torch.ones(1, 1, dtype=torch.long), torch.tensor([most]))
    return list(scorer.calls)


def test_what_is_copied_is_read_at_once() -> None:
    source = [3 + n % 5 + n % 7 for n in range(30)]
    scorer = Copying(Table(20), 50.0)
    assert calls(Greedy(), scorer, source, 40) == [1] * 31
    assert calls(Draft(span=40), scorer, source, 40) == [32]
    assert calls(Draft(span=40), scorer, source, 10) == [10], "no token behind the limit is read"
    assert calls(Draft(span=10), scorer, source, 40) == [11, 11, 10]
    memory = scorer.encode({"source": Sequences.stack([torch.tensor([*source, EOS])])})
    parts = Draft(span=10).unfold(scorer, memory, torch.ones(1, 1).long(), torch.tensor([40]))
    assert [len(part) for part in parts] == [11, 11, 9]


@pytest.mark.parametrize("love", [0.0, 1.0, 3.0])
def test_drafts_never_cost_a_step(love: float) -> None:
    for seed in range(10):
        scorer = Copying(Table(9, seed), love)
        source = torch.randint(3, 9, (12,), generator=torch.Generator().manual_seed(seed)).tolist()
        plain = calls(Greedy(), scorer, source, 30)
        for search in DRAFTS:
            drafted = calls(search, scorer, source, 30)
            assert len(drafted) <= len(plain)
            assert max(drafted) <= 2 * search.span + 1


def test_a_place_is_found_again_by_the_longest_match() -> None:
    source = [5, 6, 7, 8, 3, 6, 7, 9, EOS]
    propose = Draft(span=3)._propose
    assert propose(source, [], 9) == [5, 6, 7]
    assert propose(source, [4, 6, 7], 9) == [8, 3, 6]
    assert propose(source, [3, 6, 7], 9) == [9, EOS]
    assert propose(source, [3, 6, 7], 1) == [9]
    assert propose(source, [4, 7], 9) == []
    assert propose(source, [7, 4], 9) == []


def test_a_scorer_that_forgets_its_sources_is_refused() -> None:
    scorer, given = Recurrent(7), task(4, 7, 4)
    for forgetful in (scorer, Length(least=2).over(scorer)):
        with pytest.raises(Problem, match="Recurrent does not say what its sources were"):
            Draft()(forgetful, forgetful.encode(given.sources), given.prompt, given.limit)


GUESSES = [Speculative(), Speculative(span=1), Speculative(span=7)]


@pytest.mark.parametrize("drafter", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_whatever_drafts_the_answer_is_that_of_greedy_search(
    make: Callable[[int], Any], drafter: Callable[[int], Any]
) -> None:
    given = task(12, 9, 12)
    for search in GUESSES:
        for scorer in (make(9), Length(least=3).over(make(9))):
            aided = Aided(scorer, drafter(9))
            for read in (given.prompt[:, :1], given.prompt):
                testing.check_draft_is_greedy(search, aided, given.sources, read, given.limit)
    testing.check_search(GUESSES[0], aided, given.sources, given.prompt[:, :1], given.limit)
    testing.check_scorer(aided, given.sources, torch.randint(3, 9, (12, 4)))


KINDS = [name for name in DECODERS if "-" not in name]


@pytest.mark.parametrize("small", KINDS)
@pytest.mark.parametrize("large", KINDS)
def test_models_draft_for_models(large: str, small: str) -> None:
    given, other = case("recurrent", large, 7, 9, 8), case("transformer", small, 7, 9, 8)
    aided, limit = Aided(given.model, other.model), given.limit + 4
    for search in GUESSES:
        testing.check_draft_is_greedy(search, aided, given.sources, given.prompt, limit)


class Counting(Recurrent):
    """Notes how many tokens it read at each step."""

    def __init__(self, symbols: int, seed: int = 0) -> None:
        super().__init__(symbols, seed)
        self.calls = list[int]()

    def extend(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.calls.append(tokens.shape[1])
        return super().extend(tokens, state)


def test_a_drafter_that_is_right_saves_steps_and_reads_nothing_twice() -> None:
    model, twin = Counting(20, seed=4), Counting(20, seed=4)
    sources = {"source": Sequences.stack([torch.tensor([5, 9, 4, EOS])])}
    prompt, limit = torch.ones(1, 1, dtype=torch.long), torch.tensor([41])
    aided = Aided(model, twin)
    found = Speculative(span=4)(aided, aided.encode(sources), prompt, limit)
    length = int(found.lengths[0, 0])
    assert length > 10
    assert model.calls[0] == 5
    assert len(model.calls) == -(-length // 5)
    # four tokens are drafted at a time; the last of them and the one behind are read together
    assert sum(twin.calls) <= length
    assert set(twin.calls) <= {1, 2}
    wrong, plain = Counting(20, seed=5), Counting(20, seed=4)
    Greedy()(plain, plain.encode(sources), prompt, limit)
    model.calls.clear()
    aided = Aided(model, wrong)
    Speculative(span=4)(aided, aided.encode(sources), prompt, limit)
    assert len(model.calls) <= len(plain.calls), "drafts never cost a step"


def test_each_may_read_a_source_of_its_own() -> None:
    given = task(6, 9, 8)
    other = {"draft:source": task(6, 9, 8, seed=3).sources["source"]}
    aided = Aided(Recurrent(9), Recurrent(9, seed=2))
    memory = aided.encode(given.sources | other)
    wanted = aided.drafter.encode({"source": other["draft:source"]})
    assert torch.equal(memory.drafter.states, wanted.states)
    sources = given.sources | other
    testing.check_draft_is_greedy(Speculative(), aided, sources, given.prompt, given.limit)


def test_without_a_small_model_there_is_nobody_to_draft() -> None:
    scorer, given = Recurrent(7), task(4, 7, 4)
    with pytest.raises(Problem, match=r"^search\.kind: speculative: it needs a small model"):
        Speculative()(scorer, scorer.encode(given.sources), given.prompt, given.limit)
