"""Searches that go token by token, and what drives them: sources come and go, rows are few.

A search of this kind says what it notes of each source, which tokens it weighs after each of its
rows (the best ones, if it says nothing), and how it moves on from them. When sources leave the
rows, which take their places, and in which order hypotheses lie in the state is decided here, once
for all searches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce import tree
from transduce.asking import free, interval
from transduce.search.hypotheses import Hypotheses
from transduce.search.interface import Batch, SearchBlueprint, require_room
from transduce.search.notes import held
from transduce.search.scorer import Scorer
from transduce.search.top import no_numbers, top

DONE: Final = 0.2  # share of finished sources at which dropping their rows repays the copy


class Move(NamedTuple):
    """How a search goes on with A sources."""

    notes: Any
    going: Bool[Tensor, "A"]  # False: this source is answered
    parents: Int[Tensor, "A K"]  # the row of its source that each row continues
    tokens: Int[Tensor, "A K"]


class StepwiseSearch(SearchBlueprint):
    """A search whose every source has the same number of rows, each one token longer each time."""

    stays: ClassVar[bool] = False  # each row continues itself, step after step

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

        Notes on steps may be written in place, behind what a source has taken. An answered source
        is asked again until it has left the rows, and what is said then is not heard.
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
        work, said = Work(self, scorer, 1), 0
        work.admit(Batch(memory, prompt, limit, keys))
        while work.slots is not None:
            move = work.weigh()
            found = self.collect(work.slots.notes)
            yield found.tokens[0, 0, said : found.lengths[0, 0]].tolist()
            said = int(found.lengths[0, 0])
            work.read(work.look(move, 0))


class Slots(NamedTuple):
    """A sources at work: a tree, so that they are kept and joined together."""

    state: Any  # K rows for each
    notes: Any
    values: Float[Tensor, "A K M"]  # of the tokens that may follow each row
    ids: Int[Tensor, "A K M"]
    going: Bool[Tensor, "A"]  # False: answered
    sound: Bool[Tensor, "A"]  # False: scores were no numbers, and nobody has looked yet


@torch.no_grad()
def answers(
    search: StepwiseSearch, scorer: Scorer, batches: Iterable[Batch], room: int
) -> Iterator[Hypotheses]:
    """Answer batch after batch, each whole and in order.

    A waiting batch is read as soon as no more than ``room`` sources are at work with it.
    """
    waiting, work = iter(batches), Work(search, scorer)
    arriving = next(waiting, None)
    while arriving is not None or work.seats:
        while arriving is not None and (
            not work.seats or len(work.seats) + len(arriving.limit) <= room
        ):
            work.admit(arriving)
            arriving = next(waiting, None)
        move = work.weigh()
        if work.due:
            most = (1 - DONE) * len(work.seats)
            if arriving is not None:
                most = max(most, room - len(arriving.limit))
            move = work.look(move, most)
        work.read(move)
        yield from work.shelf.ready()


class Seat(NamedTuple):
    """Whose place a source at work has: what the host knows of it without asking."""

    batch: int  # number of the batch that it came with
    place: int  # its number there
    last: int  # the step at which all of its batch are answered
    working: bool  # False: its answer was taken, and it has not left yet


class Work:
    """The sources at work, and how they come, go on and leave.

    A device that is asked at every step stands still at every step, so it is told to go on with all
    of them until it is time to look. What an answered source is told meanwhile changes nothing.
    """

    def __init__(self, search: StepwiseSearch, scorer: Scorer, every: int | None = None) -> None:
        """Begin without sources; ask ``every`` so many steps, if not as often as is good."""
        self.search, self.scorer = search, scorer
        self.wanted, self.every = every, 1
        self.shelf, self.step = _Shelf(search), 0
        self.slots: Slots | None = None
        self.seats: list[Seat] = []
        self.taken = 0  # of the answers of those who have not left
        self.last = 0  # the first step at which all of a batch are answered

    def admit(self, batch: Batch) -> None:
        """Read the prompts, in one row each: the other rows are not born yet."""
        memory, prompt, limit, keys = batch
        require_room(limit)
        self.every = self.wanted or interval(limit.device)
        search, spread = self.search, (-1, self.search.rows, -1)
        log_probs, state = self.scorer.extend(prompt, self.scorer.start(memory))
        said = log_probs[:, -1:]
        notes = search.begin(limit, torch.zeros_like(limit) if keys is None else keys)
        notes, values, ids = search.consider(self.scorer, state, notes, said)
        going = torch.ones_like(limit, dtype=torch.bool)
        fresh = Slots(
            tree.widen(state, search.rows) if search.rows > 1 else state,
            notes,
            values.expand(spread),
            ids.expand(spread),
            going,
            _sound(going, said),
        )
        self.slots = fresh if self.slots is None else tree.join([self.slots, fresh])
        number, last = self.shelf.open(len(limit)), self.step + int(limit.max())
        self.seats += [Seat(number, place, last, True) for place in range(len(limit))]
        self.last = min(seat.last for seat in self.seats)

    def weigh(self) -> Move:
        """Let the search choose the next token of every row."""
        assert self.slots is not None
        slots = self.slots
        move = self.search.weigh(slots.notes, slots.values, slots.ids)
        notes = move.notes if self.every == 1 else held(slots.going, move.notes, slots.notes)
        self.slots = slots._replace(notes=notes, going=slots.going & move.going)
        self.step += 1
        return move

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return self.step % self.every == 0 or self.last <= self.step

    def look(self, move: Move, most: float) -> Move:
        """Take new answers, and drop the rows of all that are answered if that is worth it.

        It is if ``most`` or fewer sources stay. Nobody stays behind the longest limit of its batch:
        there may be no more positions than that. Returns what those do that stay.

        Raises:
            Problem: scores were no numbers.
        """
        assert self.slots is not None
        going, sound = torch.stack([self.slots.going, self.slots.sound]).tolist()
        if not all(sound):
            raise no_numbers()
        if going.count(False) > self.taken:
            self._take(going)
        stay = len(going) - self.taken
        if self.taken == 0 or (stay > most and self.last > self.step):
            return move
        return self._drop(move)

    def _take(self, going: list[bool]) -> None:
        """Lay new answers on the shelf."""
        assert self.slots is not None
        both = [*zip(self.seats, going, strict=True)]
        rows = [row for row, (seat, on) in enumerate(both) if seat.working and not on]
        self.shelf.take(self.slots.notes, rows, self.seats)
        self.seats = [seat._replace(working=on) for seat, on in both]
        self.taken = going.count(False)

    def _drop(self, move: Move) -> Move:
        """Let all go whose answers were taken."""
        assert self.slots is not None
        left = [row for row, seat in enumerate(self.seats) if seat.working]
        self.seats, self.taken = [self.seats[row] for row in left], 0
        if not left:
            self.slots = None
            return move
        self.last = min(seat.last for seat in self.seats)
        rows = torch.tensor(left, device=self.slots.going.device)
        state = tree.keep(self.slots.state, rows, self.search.rows)
        self.slots = Slots(state, *tree.keep(self.slots[1:], rows, 1))
        return move._replace(parents=move.parents[rows], tokens=move.tokens[rows])

    def read(self, move: Move) -> None:
        """Read the next token in every row, if there are any."""
        if self.slots is None:
            return
        slots, search = self.slots, self.search
        state, sources = slots.state, len(self.seats)
        if search.rows > 1 and not search.stays:
            first = torch.arange(sources, device=move.parents.device)[:, None] * search.rows
            rows = (first + move.parents).flatten()
            # To move them is cheaper than to ask whether that is needed, if asking is not free.
            if self.every > 1 or not torch.equal(rows, torch.arange(len(rows), device=rows.device)):
                state = tree.reorder(state, rows)
        log_probs, state = self.scorer.extend(move.tokens.flatten()[:, None], state)
        after = log_probs[:, -1].view(sources, search.rows, -1)
        notes, values, ids = search.consider(self.scorer, state, slots.notes, after)
        sound = _sound(slots.sound, after)
        self.slots = Slots(state, notes, values, ids, slots.going, sound)


def _sound(before: Bool[Tensor, "A"], log_probs: Float[Tensor, "A R V"]) -> Bool[Tensor, "A"]:
    """Return whose scores are numbers, these too, where the search has not looked itself."""
    if free(log_probs):
        return before
    return before & ~log_probs.amax(2).isnan().any(1)  # NaN is above all numbers


class _Shelf:
    """Where answered sources wait until their whole batch is answered, and those before it."""

    def __init__(self, search: StepwiseSearch) -> None:
        self.search, self.opened = search, 0
        self.parts: dict[int, list[tuple[Any, list[int]]]] = {}
        self.missing: dict[int, int] = {}  # how many sources of a batch are not answered

    def open(self, size: int) -> int:
        """Return the number of a new batch."""
        number, self.opened = self.opened, self.opened + 1
        self.parts[number], self.missing[number] = [], size
        return number

    def take(self, notes: Any, rows: Sequence[int], seats: Sequence[Seat]) -> None:
        """Note what was found for the sources in some rows, of any batches."""
        for number in {seats[row].batch for row in rows}:
            own = [row for row in rows if seats[row].batch == number]
            found = tree.keep(notes, torch.tensor(own, device=_device(notes)), 1)
            self.parts[number].append((found, [seats[row].place for row in own]))
            self.missing[number] -= len(own)

    def ready(self) -> Iterator[Hypotheses]:
        """Yield the answers of the batches that are next."""
        while self.missing and not self.missing[number := min(self.missing)]:
            del self.missing[number]
            notes, places = zip(*self.parts.pop(number), strict=True)
            order = torch.tensor([place for part in places for place in part]).argsort()
            whole = tree.join(notes)
            yield self.search.collect(tree.keep(whole, order.to(_device(whole)), 1))


def _device(notes: Any) -> torch.device:
    return next(tree.leaves(notes))[0].device
