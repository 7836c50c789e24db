"""A constraint: an automaton that reads along with a scorer and says what may follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transduce import tree
from transduce.blueprint import Part
from transduce.search.interface import SearchBlueprint
from transduce.search.scorer import Scorer, quote
from transduce.sequences import Sequences

S = TypeVar("S")

EOS: Final = SearchBlueprint.eos


class Progress(NamedTuple):
    """How much of what a constraint asks for each row has said, and will have behind a symbol."""

    now: Int[Tensor, "N"]
    behind: Int[Tensor, "N C"]  # column 0: behind all symbols that have no column
    symbols: Int[Tensor, "N C"]  # of columns; 0: this one has none

    def wanted(self) -> Int[Tensor, "N C"]:
        """Return the symbols that bring a row on, 0 in place of the others."""
        return self.symbols.masked_fill(self.behind <= self.now[:, None], 0)

    def after(self, tokens: Int[Tensor, "N M"]) -> Int[Tensor, "N M"]:
        """Return how much each row will have said behind each of some tokens."""
        same = (tokens[:, :, None] == self.symbols[:, None]) & (self.symbols > 0)[:, None]
        return self.behind.gather(1, same.int().argmax(2))


class Constraint(ABC, Generic[S]):
    """Changes what a scorer says by what has been read, in each row on its own.

    States are trees, and new ones are made, never old ones changed. The first symbol that is read
    is the beginning; the output is what follows it.
    """

    @abstractmethod
    def begin(self, sources: Mapping[str, Sequences]) -> S:
        """Return the state before anything is read, one row for every source."""

    @abstractmethod
    def read(self, tokens: Int[Tensor, "N"], state: S) -> S:
        """Read one token in every row."""

    @abstractmethod
    def weigh(self, log_probs: Float[Tensor, "N V"], state: S) -> Float[Tensor, "N V"]:
        """Return the log-probabilities of what may follow, -inf for what may not."""

    def note(self, log_probs: Float[Tensor, "N V"], state: S) -> S:
        """Return the state with what it has to remember of what the scorer says here."""
        return state

    def progress(self, state: S) -> Progress | None:
        """Return how far each row has come, if something is asked for."""
        return None


class Pair(NamedTuple):
    """A memory or a state of a scorer, and that of the constraint around it."""

    scorer: Any
    constraint: Any


class Constrained:
    """A scorer inside a constraint: a scorer itself, so that no search has to know.

    What is allowed keeps the log-probability that the scorer gave it: the probabilities of what
    may follow add up to less than 1.
    """

    def __init__(self, scorer: Scorer, constraint: Constraint[Any]) -> None:
        self.scorer, self.constraint = scorer, constraint

    def encode(self, sources: Mapping[str, Sequences]) -> Pair:
        """Read the sources once."""
        return Pair(self.scorer.encode(sources), self.constraint.begin(sources))

    def quote(self, memory: Pair) -> Sequences:
        """Return the sources, if the scorer can."""
        return quote(self.scorer, memory.scorer)

    def start(self, memory: Pair, width: int = 1, capacity: int | None = None) -> Pair:
        """Return the state before any token, ``width`` rows for every source."""
        state = self.scorer.start(memory.scorer, width, capacity)
        return Pair(state, tree.widen(memory.constraint, width))

    def extend(
        self, tokens: Int[Tensor, "N T"], state: Pair
    ) -> tuple[Float[Tensor, "N T V"], Pair]:
        """Read T tokens in every row; return the log-probabilities of what may follow each."""
        log_probs, after = self.scorer.extend(tokens, state.scorer)
        own, allowed = state.constraint, []
        for read, said in zip(tokens.unbind(1), log_probs.unbind(1), strict=True):
            own = self.constraint.note(said, self.constraint.read(read, own))
            allowed.append(self.constraint.weigh(said, own))
        # A step of a search reads one token: no need to copy the scores of all symbols.
        together = torch.stack(allowed, 1) if len(allowed) > 1 else allowed[0][:, None]
        return together, Pair(after, own)


def constrained(scorer: Scorer, constraints: Iterable[Constraint[Any]]) -> Scorer:
    """Put a scorer inside constraints, the first one innermost."""
    for constraint in constraints:
        scorer = Constrained(scorer, constraint)
    return scorer


def requirements(scorer: Scorer, state: Any) -> list[Progress]:
    """Return how far each row has come with all that the constraints of a scorer ask for."""
    found = []
    while isinstance(scorer, Constrained):
        found.append(scorer.constraint.progress(state.constraint))
        scorer, state = scorer.scorer, state.scorer
    return [one for one in found if one is not None]


class Texts(NamedTuple):
    """What the symbols of a vocabulary add to a text."""

    of_symbols: Sequence[str | bytes | None]  # None: this one stands for no text
    spaced: bool  # a space at the very beginning is left out of the text


class Target(NamedTuple):
    """What a constraint has to know of the side that is written."""

    symbols: Callable[[str], list[int]]  # of a text, without its end
    texts: Callable[[], Texts]
    limit: Callable[[Int[Tensor, "B"]], Int[Tensor, "B"]]  # most tokens, by source lengths
    device: torch.device


class ConstraintBlueprint(Part):
    """Slot for a constraint."""

    begins: ClassVar[bool] = False  # it says how outputs begin

    @abstractmethod
    def build(self, target: Target) -> Constraint[Any]:
        """Make the constraint.

        Raises:
            Problem: it has words that the target side cannot write.
        """
