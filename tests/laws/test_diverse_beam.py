"""Diverse beam search against a reference that keeps no secrets."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from toys import EOS, Recurrent, Table, with_holes

from transduce.search import Beam, DiverseBeam, PowerNormalisation, Scorer
from transduce.sequences import Sequences

PROMPT = [1]
SOURCES = [[4, 5, EOS], [EOS], [3, 3, 6, EOS], [6, EOS], [5, 4, 3, EOS]]
LIMITS = [7, 6, 2, 9, 1]
SCORERS: dict[str, Any] = {"table": Table, "recurrent": Recurrent, "with holes": with_holes}


@dataclass
class Live:
    """A hypothesis: its log-probability, what its tokens cost, and they."""

    log_prob: float = 0.0
    cost: float = 0.0
    tokens: tuple[int, ...] = ()

    @property
    def total(self) -> float:
        return self.log_prob - self.cost


@dataclass
class Group:
    live: list[Live] = field(default_factory=lambda: [Live()])
    finished: list[Live] = field(default_factory=list)
    last: list[Live] = field(default_factory=lambda: [Live()])

    def step(self, scorer: Scorer, memory: Any, taken: Counter[int], search: DiverseBeam) -> None:
        candidates = []
        for hypothesis in self.live:
            read = torch.tensor([PROMPT + list(hypothesis.tokens)])
            log_probs = scorer.extend(read, scorer.start(memory))[0][0, -1].tolist()
            for symbol, value in enumerate(log_probs):
                cost = hypothesis.cost + search.penalty * taken[symbol]
                tokens = (*hypothesis.tokens, symbol)
                candidates.append(Live(hypothesis.log_prob + value, cost, tokens))
        possible = [candidate for candidate in candidates if candidate.log_prob > -math.inf]
        ranked = sorted(possible, key=lambda candidate: -candidate.total)
        self.finished += [c for c in ranked[: search.width] if c.tokens[-1] == EOS]
        self.live = [c for c in ranked if c.tokens[-1] != EOS][: search.width]
        self.last = self.live or self.last


def reference(
    search: DiverseBeam, scorer: Scorer, source: list[int], limit: int
) -> dict[tuple[int, ...], float]:
    """Answer one source: the log-probability of what each group says."""
    memory = scorer.encode({"source": Sequences.stack([torch.tensor(source)])})
    groups = [Group() for _ in range(search.groups)]
    for _ in range(limit):
        taken: Counter[int] = Counter()
        for group in groups:
            if group.live and len(group.finished) < search.width:
                group.step(scorer, memory, taken, search)
                taken.update(hypothesis.tokens[-1] for hypothesis in group.live)
    said: dict[tuple[int, ...], float] = {}
    for group in groups:
        ranked = sorted(group.finished, key=lambda c: -c.total / len(c.tokens))
        if not ranked or len(group.last[0].tokens) == limit:
            ranked += group.last
        new = [c for c in ranked[: search.width] if c.tokens and c.tokens not in said]
        said |= {c.tokens: c.log_prob for c in new[:1]}
    return said


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize(
    "search",
    [
        DiverseBeam(),
        DiverseBeam(groups=4, width=1, penalty=1.0),
        DiverseBeam(groups=3, width=4, penalty=3.0),
        DiverseBeam(groups=3, width=2, penalty=0.0),
    ],
    ids=lambda search: f"{search.groups} of {search.width}, {search.penalty}",
)
def test_diverse_beam_is_the_reference(name: str, search: DiverseBeam) -> None:
    scorer = SCORERS[name](8)
    memory = scorer.encode({"source": Sequences.stack([torch.tensor(row) for row in SOURCES])})
    prompt = torch.tensor([PROMPT] * len(SOURCES))
    found = search(scorer, memory, prompt, torch.tensor(LIMITS))
    for row, (source, limit) in enumerate(zip(SOURCES, LIMITS, strict=True)):
        wanted = reference(search, scorer, source, limit)
        lengths = found.lengths[row].tolist()
        ours = {
            tuple(found.tokens[row, k, :n].tolist()): float(found.log_probs[row, k])
            for k, n in enumerate(lengths)
            if n
        }
        assert ours == pytest.approx(wanted, abs=1e-4)


def test_the_first_group_is_a_beam_search() -> None:
    scorer, normalisation = Recurrent(9), PowerNormalisation(exponent=0.6)
    memory = scorer.encode({"source": Sequences.stack([torch.tensor(row) for row in SOURCES])})
    given = memory, torch.tensor([PROMPT] * len(SOURCES)), torch.tensor(LIMITS)
    beam = Beam(width=3, normalisation=normalisation)(scorer, *given)
    one = DiverseBeam(groups=1, width=3, normalisation=normalisation)(scorer, *given)
    assert one.tokens.tolist() == beam.tokens.tolist()
    torch.testing.assert_close(one.scores, beam.scores)
    several = DiverseBeam(groups=4, width=3, penalty=2.0, normalisation=normalisation)
    found = several(scorer, *given)
    best = [tuple(row[0][:n]) for row, n in zip(beam.tokens.tolist(), beam.lengths, strict=True)]
    for row, wanted in enumerate(best):
        lengths = found.lengths[row].tolist()
        ours = [tuple(found.tokens[row, k, :n].tolist()) for k, n in enumerate(lengths)]
        assert wanted in ours


def test_a_penalty_makes_answers_differ_sooner() -> None:
    scorer = Recurrent(9)
    memory = scorer.encode({"source": Sequences.stack([torch.tensor(row) for row in SOURCES])})
    given = memory, torch.tensor([PROMPT] * len(SOURCES)), torch.tensor([6] * len(SOURCES))

    def openings(penalty: float) -> int:
        found = DiverseBeam(groups=4, width=2, penalty=penalty)(scorer, *given)
        return sum(len(set(row)) for row in found.tokens[:, :, 0].tolist())

    assert openings(0.0) < openings(1.0) < openings(5.0)
