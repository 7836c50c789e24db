"""What stands between encoder and recurrent decoder, and the kinds without attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.tree import PerSource


def fold(x: Float[Tensor, "N T D"], sources: int) -> Float[Tensor, "B KT D"]:
    """Lay the rows of each source behind one another."""
    return x.reshape(sources, -1, x.shape[-1])


@dataclass(frozen=True)
class Prepared(PerSource):
    """What a connection needs of the sources."""

    values: Float[Tensor, "B S D"]
    mask: Bool[Tensor, "B S"]
    keys: Float[Tensor, "B S E"] | None = None


class Trail(NamedTuple):
    """What a connection remembers of the positions before; most remember nothing."""

    place: Int[Tensor, "N"] | None = None  # target positions read
    past: Float[Tensor, "N S"] | None = None  # where it has looked


class Connection(nn.Module, ABC):
    """Brings what a decoder needs of the source to each of its positions."""

    constant: ClassVar[bool] = False  # whether every position gets the same

    @abstractmethod
    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Do once for each source all that does not depend on the target."""

    def begin(self, source: Prepared, rows: int) -> Trail:
        """Return what it remembers before the first position."""
        return Trail()

    @abstractmethod
    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared, trail: Trail
    ) -> tuple[Float[Tensor, "N T C"], Float[Tensor, "N T S"] | None, Trail]:
        """Return the context for each position, attention's weights if any, and what follows."""


class ConnectionBlueprint(Part):
    """Slot for the connection between encoder and recurrent decoder."""

    @abstractmethod
    def build(self, query: int, memory: int) -> Connection:
        """Make it for decoder states of width ``query`` and encoder states of width ``memory``."""

    def context_width(self, query: int, memory: int) -> int:
        """Return the width of what it brings to each position, for the same widths."""
        return memory


class FixedContext(Connection):
    """The same vector, a summary of the whole source, at every step (Cho 2014)."""

    constant = True

    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Keep the summary alone."""
        return Prepared(summary[:, None], mask[:, :1])

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared, trail: Trail
    ) -> tuple[Float[Tensor, "N T D"], None, Trail]:
        """Repeat the summary for each position."""
        rows, length = query.shape[:2]
        width = rows // len(source.values)
        context = source.values.repeat_interleave(width, 0)
        return context.expand(rows, length, context.shape[-1]), None, trail


class FixedContextBlueprint(ConnectionBlueprint):
    """One vector for the whole source, no attention."""

    kind: Literal["fixed"] = "fixed"

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return FixedContext()


class InitialState(Connection):
    """Nothing: all that is known of the source is the state that began from it (Sutskever 2014)."""

    constant = True

    def prepare(
        self,
        states: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"],
        summary: Float[Tensor, "B D"],
    ) -> Prepared:
        """Keep nothing but how many sources there are."""
        return Prepared(summary[:, None, :0], mask[:, :1])

    def forward(
        self, query: Float[Tensor, "N T E"], source: Prepared, trail: Trail
    ) -> tuple[Float[Tensor, "N T 0"], None, Trail]:
        """Bring nothing."""
        return query[:, :, :0], None, trail


class InitialStateBlueprint(ConnectionBlueprint):
    """No connection but the decoder's first state."""

    kind: Literal["initial"] = "initial"

    def build(self, query: int, memory: int) -> Connection:
        """Make it."""
        return InitialState()

    def context_width(self, query: int, memory: int) -> int:
        """Return that it brings nothing."""
        return 0
