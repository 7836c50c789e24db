"""The whole model: encoders, a decoder and a head, behind the three verbs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from transduce.models.interface import Decoder, Encoder, Head, Memory, Readout
from transduce.problem import Problem
from transduce.sequences import Sequences

UNK: Final = 0  # the unknown symbol, the same in every vocabulary


class Seq2SeqState(NamedTuple):
    """The decoder's state and what the head remembers of the source."""

    decoder: Any
    head: Any


class Seq2Seq(nn.Module):
    """Scores targets given sources (Sutskever 2014; Cho 2014); knows neither search nor text."""

    def __init__(self, encoders: Mapping[str, Encoder], decoder: Decoder[Any], head: Head) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.decoder = decoder
        self.head = head
        # the most symbols of each side that there are positions for; None: any number
        self.longest: dict[str, int | None] = {
            name: part.longest for name, part in encoders.items()
        }
        self.longest["target"] = decoder.longest

    def encode(self, sources: Mapping[str, Sequences]) -> Memory:
        """Let each encoder read its source."""
        memory = {}
        for name, encoder in self.encoders.items():
            source = sources[name]
            if source.data.is_floating_point():
                memory[name] = encoder(source)
            else:
                known = replace(source, data=self.readable(source.data))
                memory[name] = replace(encoder(known), ids=source.data)
        return memory

    def quote(self, memory: Memory) -> Sequences:
        """Return the sources, symbols as they were read.

        Raises:
            Problem: they are no symbols.
        """
        bank = memory["source"]
        if bank.ids is None:
            raise Problem("this model's sources are no symbols; choose another", "search")
        return Sequences(bank.ids, bank.mask.sum(1))

    def readable(self, ids: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
        """Return symbols with the unknown one for those behind the vocabulary.

        What these stand for is another word in every source, so they have no vectors.
        """
        if self.head.slots == 0:
            return ids
        return ids.masked_fill(ids >= self.decoder.embedding.num_embeddings, UNK)

    def start(self, memory: Memory, width: int = 1, capacity: int | None = None) -> Seq2SeqState:
        """Return the state before any token, ``width`` rows for every source."""
        state = self.decoder.start(memory, width, capacity)
        return Seq2SeqState(state, self.head.start(memory))

    def extend(
        self, tokens: Int[Tensor, "N T"], state: Seq2SeqState
    ) -> tuple[Float[Tensor, "N T V"], Seq2SeqState]:
        """Read T tokens in every row; return the log-probabilities of what follows each."""
        out, after = self.decoder.extend(self.readable(tokens), state.decoder)
        return self.head(out, state.head), Seq2SeqState(after, state.head)

    def read(self, sources: Mapping[str, Sequences], inputs: Sequences) -> tuple[Memory, Readout]:
        """Read whole sources and targets (training); return what the head and a loss go by."""
        memory = self.encode(sources)
        return memory, self.decoder(self.readable(inputs.data), memory)

    def forward(
        self,
        sources: Mapping[str, Sequences],
        inputs: Sequences,
        labels: Sequences,
        smoothing: float = 0.0,
        weights: Float[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the summed (smoothed loss, negative log-likelihood) of the labels (training).

        ``weights`` are what the loss of each label counts.
        """
        memory, out = self.read(sources, inputs)
        given = out, self.head.start(memory), labels, smoothing
        return self.head.loss(*given) if weights is None else self.head.loss(*given, weights)
