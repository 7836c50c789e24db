"""What every model is made of: encoders leave a memory, decoders read against it, heads score.

One legend for all shapes: B sources, K hypotheses of each, N = B * K rows (the rows of a source are
adjacent), T target positions, S source positions, V output symbols, D width, H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transduce.blueprint import Part
from transduce.sequences import Sequences
from transduce.tree import PerSource

State = TypeVar("State")


@dataclass(frozen=True)
class Bank(PerSource):
    """What one encoder leaves behind."""

    states: Float[Tensor, "B S D"]
    mask: Bool[Tensor, "B S"]
    summary: Float[Tensor, "B D"]  # all that a decoder without attention looks at
    embedded: Float[Tensor, "B S D"] | None = None  # what the states were made of, if as wide
    ids: Int[Tensor, "B S"] | None = None  # what stands there, where a source is of symbols


Memory = dict[str, Bank]


class Readout(NamedTuple):
    """What a decoder makes of the tokens it has read."""

    features: Float[Tensor, "N T D"]
    attention: Float[Tensor, "N T S"] | None = None  # where the decoder computes it anyway


class Encoder(nn.Module, ABC):
    """Reads a source once."""

    width: int  # D of the bank it leaves
    embedding: nn.Embedding
    longest: int | None = None  # most symbols it can read, eos included; None: any number

    @abstractmethod
    def forward(self, source: Sequences) -> Bank:
        """Read the sources."""


class Decoder(nn.Module, ABC, Generic[State]):
    """An action of token strings on states: reading ``xy`` is reading ``x``, then ``y``."""

    width: int  # D of its features
    embedding: nn.Embedding
    longest: int | None = None  # most symbols it can read, bos included; None: any number

    @abstractmethod
    def start(self, memory: Memory, width: int = 1, capacity: int | None = None) -> State:
        """Return the state before any token, with ``width`` rows for every source.

        ``capacity`` is the number of tokens that will be read at most; with None the state grows
        and stays valid after it has been extended (persistent).
        """

    @abstractmethod
    def extend(self, tokens: Int[Tensor, "N T"], state: State) -> tuple[Readout, State]:
        """Read T more tokens in every row."""

    def forward(self, tokens: Int[Tensor, "N T"], memory: Memory) -> Readout:
        """Read whole rows from the start (teacher forcing)."""
        return self.extend(tokens, self.start(memory))[0]


class Head(nn.Module, ABC):
    """Turns features into scores of the V output symbols."""

    slots: int = 0  # symbols behind the vocabulary, which stand for what is new in a source

    @abstractmethod
    def start(self, memory: Memory) -> Any:
        """Return the tree of what it needs of the sources (all of it ``PerSource``), or None."""

    @abstractmethod
    def forward(self, out: Readout, source: Any) -> Float[Tensor, "N T V"]:
        """Return log-probabilities; ``source`` is what ``start`` returned."""

    @abstractmethod
    def loss(
        self,
        out: Readout,
        source: Any,
        labels: Sequences,
        smoothing: float,
        weights: Float[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the summed (label-smoothed loss, negative log-likelihood) of the labels in nats.

        ``weights`` are what the loss of each label counts; they leave the second result alone.
        It never builds the whole (tokens, V) table. Only the first result carries a gradient.
        """


class EncoderBlueprint(Part):
    """Slot for an encoder."""

    reads: ClassVar[bool] = True  # a source; without one the model is a language model

    @abstractmethod
    def build(self, vocabulary: int) -> Encoder:
        """Make the encoder of a source with that many symbols."""


class DecoderBlueprint(Part):
    """Slot for a decoder."""

    @abstractmethod
    def build(self, vocabulary: int, memory: int) -> Decoder[Any]:
        """Make the decoder for that many target symbols over a bank of width ``memory``.

        A width of 0 says that there is no source, and nothing to look at.
        """


class HeadBlueprint(Part):
    """Slot for a head."""

    copies: ClassVar[bool] = False  # symbols of the source, so that both sides need the same ones

    @property
    def slots(self) -> int:
        """How many symbols behind the vocabulary stand for what is new in a source."""
        return 0

    @abstractmethod
    def build(self, width: int, memory: int, embedding: nn.Embedding, tied: bool) -> Head:
        """Make the head over features of ``width`` and a bank of width ``memory``.

        Tied, the decoder's embedding scores.
        """
