"""A banked beam is a beam where nothing is required, and finds better places where something is."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from toys import EOS, Recurrent, Table, with_holes

from transduce.search import BankedBeam, Beam, Hypotheses, Scorer
from transduce.search.constrain import Constrained, Required, constrained
from transduce.search.constrain.constraint import requirements
from transduce.sequences import Sequences

SYMBOLS = 9
CPU = torch.device("cpu")
LIMIT = 9
PHRASES = [[[5, 8]], [[3], [7, 7]], [[4]]]


def limit(lengths: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    return torch.full_like(lengths, LIMIT)


def sources(number: int) -> dict[str, Sequences]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(3, SYMBOLS, (number, 4), generator=generator)
    return {"source": Sequences(rows, torch.full((number,), 4))}


def ask(search: Any, scorer: Scorer, read: dict[str, Sequences]) -> Hypotheses:
    lengths = read["source"].lengths
    prompt = torch.ones(len(lengths), 1, dtype=torch.long)
    found: Hypotheses = search(scorer, scorer.encode(read), prompt, limit(lengths))
    return found


@pytest.mark.parametrize("width", [1, 3, 5])
def test_without_requirements_it_is_a_beam(width: int) -> None:
    for scorer in (Table(SYMBOLS), Recurrent(SYMBOLS), with_holes(SYMBOLS)):
        plain = ask(Beam(width=width, n_best=width), scorer, sources(60))
        banked = ask(BankedBeam(width=width, n_best=width), scorer, sources(60))
        for name in ("lengths", "finished", "scores", "log_probs"):
            assert torch.equal(getattr(plain, name), getattr(banked, name))
        real = torch.arange(plain.tokens.shape[2]) < plain.lengths[:, :, None]
        assert torch.equal(plain.tokens.where(real, EOS), banked.tokens.where(real, EOS))


class Hypothesis(NamedTuple):
    tokens: tuple[int, ...]
    log_prob: float


def plainly(scorer: Scorer, read: dict[str, Sequences], width: int) -> Hypothesis | None:
    """Search for one source in the plainest way: every token of every hypothesis has its bank."""
    memory = scorer.encode(read)
    live, finished = [Hypothesis((), 0.0)], list[Hypothesis]()
    for _ in range(LIMIT):
        banks = defaultdict[int, list[Hypothesis]](list)
        for one in live:
            state = scorer.start(memory)
            said, state = scorer.extend(torch.tensor([[1, *one.tokens]]), state)
            (asked,) = requirements(scorer, state)
            behind = asked.after(torch.arange(SYMBOLS)[None])[0].tolist()
            for token, value in enumerate(said[0, -1].tolist()):
                if value > -math.inf:
                    longer = Hypothesis((*one.tokens, token), one.log_prob + value)
                    banks[behind[token]].append(longer)
        queues = [sorted(bank, key=lambda one: -one.log_prob) for bank in banks.values()]
        order = [
            one
            for turn in range(max(map(len, queues), default=0))
            for one in sorted(
                (queue[turn] for queue in queues if turn < len(queue)),
                key=lambda one: -one.log_prob,
            )
        ]
        finished += [one for one in order[:width] if one.tokens[-1] == EOS]
        live = [one for one in order if one.tokens[-1] != EOS][:width]
        if len(finished) >= width:
            break
    return max(finished, key=lambda one: one.log_prob / len(one.tokens), default=None)


@pytest.mark.parametrize("width", [2, 5])
def test_it_is_the_plain_search(width: int) -> None:
    for plain in (Table(SYMBOLS), Recurrent(SYMBOLS)):
        scorer = Constrained(plain, Required(PHRASES, limit, CPU))
        read = sources(20)
        found = ask(BankedBeam(width=width), scorer, read)
        for row in range(20):
            alone = {"source": Sequences(read["source"].data[row : row + 1], torch.tensor([4]))}
            wanted = plainly(scorer, alone, width)
            assert (wanted is not None) == bool(found.finished[row, 0])
            if wanted is not None:
                size = int(found.lengths[row, 0])
                assert found.tokens[row, 0, :size].tolist() == list(wanted.tokens)
                assert float(found.log_probs[row, 0]) == pytest.approx(wanted.log_prob, abs=1e-4)


def test_what_several_constraints_ask_for_adds_up() -> None:
    parts = [Required([one], limit, CPU) for one in PHRASES]
    scorer, whole = constrained(Table(SYMBOLS), parts), Required(PHRASES, limit, CPU)
    read = sources(40)
    tokens = torch.randint(3, SYMBOLS, (40, 3), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = 1
    together = Constrained(Table(SYMBOLS), whole)
    every = torch.arange(SYMBOLS).expand(40, -1)
    states = [one.extend(tokens, one.start(one.encode(read)))[1] for one in (scorer, together)]
    several, (one,) = requirements(scorer, states[0]), requirements(together, states[1])
    assert len(several) == len(PHRASES)
    met = torch.stack([part.after(every) for part in several]).sum(0)
    assert int(met.max()) > 1
    assert (met >= one.after(every)).all()  # which counts one phrase that has begun, no more


def test_what_is_required_is_found_in_better_places() -> None:
    gains = []
    for seed in range(6):
        scorer = Constrained(Table(SYMBOLS, seed), Required(PHRASES[:1], limit, CPU))
        beam, banked = (ask(one(width=4), scorer, sources(100)) for one in (Beam, BankedBeam))
        both = beam.finished & banked.finished
        assert banked.finished.sum() >= beam.finished.sum() > 50
        gains.append(float((banked.scores[both] - beam.scores[both]).mean()))
    assert sum(gains) / len(gains) > 0.02
