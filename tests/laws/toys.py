"""Small scorers that obey the laws, each in its own way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transduce.search import (
    GnmtNormalisation,
    LengthNormalisation,
    PowerNormalisation,
    RewardNormalisation,
    Scorer,
    SearchBlueprint,
)
from transduce.sequences import Sequences
from transduce.tree import PerSource

EOS = 2
PRIME = 1_009


@dataclass(frozen=True)
class Code(PerSource):
    """One number for each source."""

    of_source: Int[Tensor, "B"]


class TableState(NamedTuple):
    prefix: Int[Tensor, "N"]  # one number for all that a row has read
    code: Code


class Table:
    """Looks log-probabilities up by a hash of the source and of the whole prefix."""

    def __init__(self, symbols: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scores = (torch.randn(PRIME, symbols, generator=generator) * 2).log_softmax(1)

    def encode(self, sources: Mapping[str, Sequences]) -> Code:
        source = sources["source"]
        code = torch.zeros_like(source.lengths)
        for position in range(source.size):
            read = (code * 31 + source.data[:, position] + 5) % PRIME
            code = torch.where(position < source.lengths, read, code)
        return Code(code)

    def start(self, memory: Code, width: int = 1, capacity: int | None = None) -> TableState:
        rows = len(memory.of_source) * width
        return TableState(torch.zeros(rows, dtype=torch.long), memory)

    def extend(
        self, tokens: Int[Tensor, "N T"], state: TableState
    ) -> tuple[Float[Tensor, "N T V"], TableState]:
        prefix, code = state
        width = len(prefix) // max(1, len(code.of_source))
        source = code.of_source.repeat_interleave(width)
        found = []
        for token in tokens.unbind(1):
            prefix = (prefix * 31 + token * 7 + 3) % PRIME
            found.append(self.scores[(prefix * 17 + source * 13) % PRIME])
        return torch.stack(found, 1), TableState(prefix, code)


def without_eos(symbols: int) -> Table:
    """Return a table that never ends."""
    table = Table(symbols)
    table.scores[:, EOS] = -torch.inf
    table.scores = table.scores.log_softmax(1)
    return table


def with_holes(symbols: int) -> Table:
    """Return a table in which many tokens are impossible and some prefixes lead nowhere."""
    table = Table(symbols)
    generator = torch.Generator().manual_seed(1)
    table.scores[torch.rand(table.scores.shape, generator=generator) < 0.4] = -torch.inf
    table.scores[torch.rand(PRIME, generator=generator) < 0.2] = -torch.inf
    return table


def with_ties(symbols: int) -> Table:
    """Return a table in which nearly everything is as good as something else."""
    table = Table(symbols)
    table.scores = (table.scores * 0.5).round() - 1.0
    return table


@dataclass(frozen=True)
class Vectors(PerSource):
    states: Float[Tensor, "B S D"]
    mask: Bool[Tensor, "B S"]


class RecurrentState(NamedTuple):
    hidden: Float[Tensor, "N D"]
    memory: Vectors


class Recurrent:
    """A recurrent cell that attends to the source; D = 8."""

    def __init__(self, symbols: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.embedding, self.out = weight(symbols, 8), weight(8, symbols) * 2
        self.recur, self.look = weight(8, 8) * 0.5, weight(8, 8) * 0.5

    def encode(self, sources: Mapping[str, Sequences]) -> Vectors:
        source = sources["source"]
        return Vectors(self.embedding[source.data], source.mask())

    def start(self, memory: Vectors, width: int = 1, capacity: int | None = None) -> RecurrentState:
        hidden = torch.zeros(len(memory.states) * width, 8)
        return RecurrentState(hidden, memory)

    def context(self, hidden: Float[Tensor, "N D"], memory: Vectors) -> Float[Tensor, "N D"]:
        """Attend to the source."""
        query = hidden.view(len(memory.states), -1, 8)
        scores = query @ memory.states.transpose(1, 2)
        weights = scores.masked_fill(~memory.mask[:, None], -torch.inf).softmax(-1)
        return (weights @ memory.states).flatten(0, 1)

    def extend(
        self, tokens: Int[Tensor, "N T"], state: RecurrentState
    ) -> tuple[Float[Tensor, "N T V"], RecurrentState]:
        hidden, memory = state
        found = []
        for token in tokens.unbind(1):
            context = self.context(hidden, memory)
            hidden = torch.tanh(self.embedding[token] + hidden @ self.recur + context @ self.look)
            found.append((hidden @ self.out).log_softmax(-1))
        return torch.stack(found, 1), RecurrentState(hidden, memory)


MAKERS: dict[str, Callable[[int], Any]] = {
    "table": Table,
    "recurrent": Recurrent,
    "without eos": without_eos,
    "with holes": with_holes,
    "with ties": with_ties,
}


NORMALISATIONS: list[LengthNormalisation] = [
    PowerNormalisation(exponent=0.0),
    PowerNormalisation(exponent=0.6),
    PowerNormalisation(exponent=1.0),
    GnmtNormalisation(),
    RewardNormalisation(reward=0.0),
    RewardNormalisation(reward=0.7),
    RewardNormalisation(reward=4.0),
]


class Task(NamedTuple):
    """Sources, what is read before searching, and how long the answers may be."""

    sources: dict[str, Sequences]
    prompt: Int[Tensor, "B P"]
    limit: Int[Tensor, "B"]


def task(number: int, symbols: int, longest: int, seed: int = 0) -> Task:
    """Return random sources of different lengths that end with eos, with different limits."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    lengths = numbers(0, 6, number).tolist()
    end = torch.tensor([EOS])
    rows = [torch.cat([numbers(3, symbols, length), end]) for length in lengths]
    prompt = torch.cat([torch.ones(number, 1, dtype=torch.long), numbers(3, symbols, number, 1)], 1)
    return Task({"source": Sequences.stack(rows)}, prompt, numbers(1, longest + 1, number))


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
