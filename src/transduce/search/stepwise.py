"""Searches that go token by token, and what drives them: sources come and go, rows are few.

A search of this kind says what it notes of each source, which tokens it weighs after each of its
rows (the best ones, if it says nothing), and how it moves on from them. When sources leave the
rows, which take their places, and in which order hypotheses lie in the state is decided here, once
for all searches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce import tree
from transduce.search.hypotheses import Hypotheses
from transduce.search.interface import Batch, SearchBlueprint, require_room
from transduce.search.scorer import Scorer
from transduce.search.top import top

N = TypeVar("N")

STEPS: Final = 32  # steps that notes have room for at first; they grow as they are needed
DONE: Final = 0.2  # share of finished sources at which dropping their rows repays the copy


class Move(NamedTuple):
    """How a search goes on with A sources."""

    notes: Any
    going: Bool[Tensor, "A"]  # False: this source is answered
    parents: Int[Tensor, "A K"]  # the row of its source that each row continues
    tokens: Int[Tensor, "A K"]


class StepwiseSearch(SearchBlueprint):
    """A search whose every source has the same number of rows, each one token longer each time."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of rows K for each source."""

    @property
    @abstractmethod
    def branches(self) -> int:
        """Number of tokens M after each row that it wants to see."""

    @property
    def decided(self) -> bool:
        """Whether each token is certain as soon as it is taken: with one row nothing goes back."""
        return self.rows == 1

    @abstractmethod
    def begin(self, limit: Int[Tensor, "A"], keys: Int[Tensor, "A"]) -> Any:
        """Return the notes on sources before any token; of the K rows only the first is real.

        Notes are a tree whose tensors lead with the sources. All that is random about a source
        follows from its key.
        """

    def branch(
        self, notes: Any, log_probs: Float[Tensor, "A R V"]
    ) -> tuple[Float[Tensor, "A R M"], Int[Tensor, "A R M"]]:
        """Return the tokens after each row that are worth weighing: here the best ones.

        R is 1 behind the prompt, and what is returned may have K rows even then; later it is K.
        """
        values, ids = top(log_probs.flatten(0, 1), self.branches)
        shape = (*log_probs.shape[:2], -1)
        return values.float().view(shape), ids.view(shape)

    def consider(
        self, scorer: Scorer, state: Any, notes: Any, log_probs: Float[Tensor, "A R V"]
    ) -> tuple[Any, Float[Tensor, "A R M"], Int[Tensor, "A R M"]]:
        """Return the notes, and what ``branch`` does; the scorer can be asked for more."""
        return notes, *self.branch(notes, log_probs)

    @abstractmethod
    def weigh(self, notes: Any, values: Float[Tensor, "A K M"], ids: Int[Tensor, "A K M"]) -> Move:
        """Choose among the tokens after each row, given with their log-probabilities.

        Notes may be changed in place. An answered source is asked again until it has left the
        rows, and what is said then is not heard.
        """

    @abstractmethod
    def collect(self, notes: Any) -> Hypotheses:
        """Return what was found for each source."""

    @torch.no_grad()
    def __call__(
        self, scorer: Scorer, memory: Any, prompt: Int[Tensor, "B P"], limit: Int[Tensor, "B"]
    ) -> Hypotheses:
        """Answer one batch."""
        return next(answers(self, scorer, [Batch(memory, prompt, limit)], len(limit)))

    @torch.no_grad()
    def unfold(
        self,
        scorer: Scorer,
        memory: Any,
        prompt: Int[Tensor, "1 P"],
        limit: Int[Tensor, "1"],
        keys: Int[Tensor, "1"] | None = None,
    ) -> Iterator[list[int]]:
        """Yield the answer to one source token by token."""
        if not self.decided:
            yield from super().unfold(scorer, memory, prompt, limit, keys)
        slots: Slots | None = _admit(self, scorer, Batch(memory, prompt, limit, keys), 0)
        said = 0
        while slots is not None:
            move = self.weigh(slots.notes, slots.values, slots.ids)
            found = self.collect(move.notes)
            yield found.tokens[0, 0, said : found.lengths[0, 0]].tolist()
            said = int(found.lengths[0, 0])
            slots = slots._replace(notes=move.notes, working=slots.working & move.going)
            slots = _advance(self, scorer, slots, move, 0)


class Slots(NamedTuple):
    """A sources at work: a tree, so that they are kept and joined together."""

    state: Any  # K rows for each
    notes: Any
    values: Float[Tensor, "A K M"]  # of the tokens that may follow each row
    ids: Int[Tensor, "A K M"]
    batch: Int[Tensor, "A"]  # number of the batch that it came with
    place: Int[Tensor, "A"]  # its number there
    working: Bool[Tensor, "A"]  # False: answered, and not left yet


def with_room(notes: N, length: Int[Tensor, "A"]) -> N:
    """Return notes (A, T, ...) in which every source can write at ``length``."""
    sizes = {leaf.shape[1] for leaf, _ in tree.leaves(notes)}
    if int(length.max()) < min(sizes):
        return notes

    def grow(leaf: Tensor, _: bool) -> Tensor:
        return torch.cat([leaf, torch.zeros_like(leaf)], 1)

    return tree.map_leaves(notes, grow)


@torch.no_grad()
def answers(
    search: StepwiseSearch, scorer: Scorer, batches: Iterable[Batch], room: int
) -> Iterator[Hypotheses]:
    """Answer batch after batch, each whole and in order.

    A waiting batch is read as soon as no more than ``room`` sources are at work with it.
    """
    waiting, shelf = iter(batches), _Shelf(search)
    arriving, slots = next(waiting, None), None
    while arriving is not None or slots is not None:
        while arriving is not None and (
            slots is None or len(slots.batch) + len(arriving.limit) <= room
        ):
            fresh = _admit(search, scorer, arriving, shelf.open(len(arriving.limit)))
            slots = fresh if slots is None else tree.join([slots, fresh])
            arriving = next(waiting, None)
        assert slots is not None
        move = search.weigh(slots.notes, slots.values, slots.ids)
        slots = slots._replace(notes=move.notes)
        answered = (slots.working & ~move.going).nonzero()[:, 0]
        if len(answered):
            found = slots.notes, slots.batch, slots.place
            shelf.take(*tree.keep(found, answered, 1))
            slots = slots._replace(working=slots.working & move.going)
        most = (1 - DONE) * len(slots.working)
        if arriving is not None:
            most = max(most, room - len(arriving.limit))
        slots = _advance(search, scorer, slots, move, most)
        yield from shelf.ready()


def _admit(search: StepwiseSearch, scorer: Scorer, batch: Batch, number: int) -> Slots:
    """Read the prompts, in one row each: the other rows are not born yet."""
    memory, prompt, limit, keys = batch
    require_room(limit)
    log_probs, state = scorer.extend(prompt, scorer.start(memory))
    notes = search.begin(limit, torch.zeros_like(limit) if keys is None else keys)
    notes, values, ids = search.consider(scorer, state, notes, log_probs[:, -1:])
    spread = (-1, search.rows, -1)
    place = torch.arange(len(limit), device=limit.device)
    return Slots(
        tree.widen(state, search.rows) if search.rows > 1 else state,
        notes,
        values.expand(spread),
        ids.expand(spread),
        torch.full_like(place, number),
        place,
        torch.ones_like(place, dtype=torch.bool),
    )


def _advance(
    search: StepwiseSearch, scorer: Scorer, slots: Slots, move: Move, most: float
) -> Slots | None:
    """Read the next token in every row; first drop answered sources if ``most`` or fewer stay."""
    left, parents, tokens = slots.working.nonzero()[:, 0], move.parents, move.tokens
    if len(left) == 0:
        return None
    if len(left) < len(slots.working) and len(left) <= most:
        state = tree.keep(slots.state, left, search.rows)
        slots = Slots(state, *tree.keep(slots[1:], left, 1))
        parents, tokens = parents[left], tokens[left]
    state, sources = slots.state, len(slots.working)
    if search.rows > 1:
        first = torch.arange(sources, device=parents.device)[:, None] * search.rows
        rows = (first + parents).flatten()
        if not torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            state = tree.reorder(state, rows)
    log_probs, state = scorer.extend(tokens.flatten()[:, None], state)
    after = log_probs[:, -1].view(sources, search.rows, -1)
    notes, values, ids = search.consider(scorer, state, slots.notes, after)
    return slots._replace(state=state, notes=notes, values=values, ids=ids)


class _Shelf:
    """Where answered sources wait until their whole batch is answered, and those before it."""

    def __init__(self, search: StepwiseSearch) -> None:
        self.search, self.opened = search, 0
        self.parts: dict[int, list[tuple[Any, Tensor]]] = {}
        self.missing: dict[int, int] = {}  # how many sources of a batch are not answered

    def open(self, size: int) -> int:
        """Return the number of a new batch."""
        number, self.opened = self.opened, self.opened + 1
        self.parts[number], self.missing[number] = [], size
        return number

    def take(self, notes: Any, batch: Int[Tensor, "A"], place: Int[Tensor, "A"]) -> None:
        """Note what was found for some sources, of any batches."""
        for number in set(batch.tolist()):
            rows = (batch == number).nonzero()[:, 0]
            self.parts[number].append((tree.keep(notes, rows, 1), place[rows]))
            self.missing[number] -= len(rows)

    def ready(self) -> Iterator[Hypotheses]:
        """Yield the answers of the batches that are next."""
        while self.missing and not self.missing[number := min(self.missing)]:
            del self.missing[number]
            notes, places = zip(*self.parts.pop(number), strict=True)
            order = torch.cat(places).argsort()
            yield self.search.collect(tree.keep(tree.join(notes), order, 1))
