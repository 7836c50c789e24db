"""Constraints obey the laws of scorers, and what comes out obeys the constraints."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from grammars import derives, random_rules
from jaxtyping import Int
from torch import Tensor
from toys import EOS, Recurrent, Table, with_holes

from transduce import testing
from transduce.models.build import ModelBlueprint, build
from transduce.search import BankedBeam, Beam, Greedy, PowerNormalisation, SearchBlueprint
from transduce.search.constrain import (
    Constrained,
    Constraint,
    ForcedPrefix,
    Grammar,
    Matching,
    Nfa,
    NoRepeat,
    RepetitionPenalty,
    Required,
    Texts,
    constrained,
    forbid,
    only,
    opening,
)
from transduce.sequences import Sequences

SYMBOLS = 9
CPU = torch.device("cpu")
SEARCHES: list[SearchBlueprint] = [
    Greedy(),
    Beam(width=4, n_best=3, normalisation=PowerNormalisation(exponent=0.0)),
    BankedBeam(width=4, n_best=2),
]
TEXTS_APART = 7  # that have requirements of their own
CASES = 200  # sources for each constraint drawn; 8 draws and 2 searches for each kind


class Answer(NamedTuple):
    """What was found, and for which source."""

    tokens: list[int]  # eos left out
    finished: bool
    source: list[int]
    prefix: list[int]
    own: int
    limit: int


class Case(NamedTuple):
    """A constraint and whether an answer obeys it, decided in the plainest way."""

    constraint: Constraint[Any]
    obeyed: Callable[[Answer], bool]


def phrases(chance: random.Random, most: int) -> list[list[int]]:
    """Return up to ``most`` different strings of one to three symbols."""
    number = chance.randint(1, most)
    return [
        [chance.randint(3, SYMBOLS - 1) for _ in range(chance.randint(1, 3))] for _ in range(number)
    ]


def within(phrase: list[int], tokens: list[int]) -> bool:
    size = len(phrase)
    return any(tokens[at : at + size] == phrase for at in range(len(tokens) - size + 1))


def forbidden(chance: random.Random) -> Case:
    bad = phrases(chance, 4)
    return Case(forbid(bad, CPU), lambda answer: not any(within(p, answer.tokens) for p in bad))


def no_repeat(chance: random.Random) -> Case:
    size = chance.randint(1, 4)

    def obeyed(answer: Answer) -> bool:
        tokens = answer.tokens
        strings = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
        return len(strings) == len(set(strings))

    return Case(NoRepeat(size), obeyed)


def opened(chance: random.Random) -> Case:
    prefix = phrases(chance, 1)[0]

    def obeyed(answer: Answer) -> bool:
        return answer.tokens[: len(prefix)] == prefix[: answer.limit]

    return Case(opening(prefix, CPU), obeyed)


def forced_prefix(_: random.Random) -> Case:
    def obeyed(answer: Answer) -> bool:
        prefix = answer.prefix[: answer.limit]
        return answer.tokens[: len(prefix)] == prefix

    return Case(ForcedPrefix(), obeyed)


def allowed(chance: random.Random) -> Case:
    texts = phrases(chance, 9)

    def obeyed(answer: Answer) -> bool:
        size = len(answer.tokens)
        return answer.tokens in (texts if answer.finished else [text[:size] for text in texts])

    return Case(only(texts, CPU), obeyed)


def most(lengths: Tensor) -> Tensor:
    """Return limits that are enough for some requirements, not for all."""
    return lengths * 2 + 2


def required(chance: random.Random) -> Case:
    groups = [phrases(chance, 2) for _ in range(chance.randint(1, 4))]
    needed = sum(min(map(len, group)) for group in groups) + 1

    def obeyed(answer: Answer) -> bool:
        if not answer.tokens:  # impossible, which is said at once
            return answer.limit < needed
        return all(any(within(p, answer.tokens) for p in group) for group in groups)

    return Case(Required(groups, most, CPU), obeyed)


def required_apart(chance: random.Random) -> Case:
    shared = [phrases(chance, 2) for _ in range(chance.randint(0, 1))]
    own = [[phrases(chance, 2) for _ in range(chance.randint(0, 3))] for _ in range(TEXTS_APART)]

    def obeyed(answer: Answer) -> bool:
        groups = [*shared, *own[answer.own]]
        if not answer.tokens and answer.limit < sum(min(map(len, one)) for one in groups) + 1:
            return True
        return all(any(within(p, answer.tokens) for p in group) for group in groups)

    return Case(Required(shared, most, CPU, own), obeyed)


# one of them spells é in two symbols
TEXTS: list[str | bytes | None] = [None, None, None, " a", "b", " ", "ab", b"\xc3", b"\xa9"]
EXPRESSIONS = ["(a|b)*", "[^b]+", ".*é.?", r"(a b|\w+)( a)*", r"(ab|é){2,3}b*", r".*\sab?", "a?é+"]


def written(tokens: list[int]) -> str | None:
    """Return the text of symbols, if it is one."""
    spelt = [TEXTS[token] for token in tokens]
    if None in spelt:
        return None
    whole = b"".join(x if isinstance(x, bytes) else str(x).encode() for x in spelt)
    text = whole.decode(errors="replace").removeprefix(" ")
    return None if "\ufffd" in text else text


def matching(chance: random.Random) -> Case:
    expression = chance.choice(EXPRESSIONS)

    def obeyed(answer: Answer) -> bool:
        if not answer.finished:
            return None not in map(TEXTS.__getitem__, answer.tokens) and (
                len(answer.tokens) == answer.limit
            )
        text = written(answer.tokens)
        return text is not None and bool(re.fullmatch(expression, text))

    return Case(Matching(Nfa(expression), Texts(TEXTS, spaced=True), CPU), obeyed)


def grammatical(chance: random.Random) -> Case:
    rules = random_rules(chance, "ab é")
    texts, known = Texts(TEXTS, spaced=True), dict[str | None, bool]()

    def obeyed(answer: Answer) -> bool:
        text = written(answer.tokens)
        if answer.finished and text not in known:
            known[text] = text is not None and derives(rules, 0, text)
        return not answer.finished or known[text]

    return Case(Matching(Grammar(rules, 0), texts, CPU), obeyed)


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "forbidden": forbidden,
    "no repeat": no_repeat,
    "opening": opened,
    "forced prefix": forced_prefix,
    "allowed": allowed,
    "required": required,
    "required apart": required_apart,
    "match": matching,
    "grammar": grammatical,
}
SOFT = ("forbidden", "no repeat")  # they leave most outputs as they are
CHANGES: dict[str, Callable[[random.Random], Constraint[Any]]] = {
    "repetition penalty": lambda _: RepetitionPenalty(1.7),
}
EVERY: dict[str, Callable[[random.Random], Constraint[Any]]] = CHANGES | {
    name: lambda chance, make=make: make(chance).constraint for name, make in KINDS.items()
}


class Task(NamedTuple):
    sources: dict[str, Sequences]
    prompt: Int[Tensor, "B 1"]
    limit: Int[Tensor, "B"]


def task(number: int, longest: int, seed: int = 0) -> Task:
    """Return random sources that end with eos, prefixes of outputs, and limits."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 6, (number,), generator=generator).tolist()
    rows = [
        torch.cat([torch.randint(3, SYMBOLS, (n,), generator=generator), torch.tensor([EOS])])
        for n in lengths
    ]
    begins = torch.randint(3, SYMBOLS, (number, 4), generator=generator)
    prefix = Sequences(begins, torch.randint(0, 5, (number,), generator=generator))
    own = Sequences(torch.arange(number)[:, None] % TEXTS_APART, torch.ones(number).long())
    sources = {"source": Sequences.stack(rows), "prefix": prefix, "own": own}
    limit = most(sources["source"].lengths).clamp(max=longest)
    return Task(sources, torch.ones(number, 1, dtype=torch.long), limit)


def model() -> Any:
    """Return a tiny Transformer that is sure of itself."""
    torch.manual_seed(0)
    part = {"kind": "transformer", "width": 8, "inner": 12, "heads": 2, "layers": 1}
    blueprint = ModelBlueprint.model_validate({"encoder": part, "decoder": part, "tie": "none"})
    made = build(blueprint, {"source": SYMBOLS, "target": SYMBOLS}).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(3 if weight.dim() > 1 else 1)
    return made


SCORERS: dict[str, Callable[[], Any]] = {
    "table": lambda: Table(SYMBOLS),
    "holes": lambda: with_holes(SYMBOLS),
    "model": model,
}


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("kind", EVERY)
def test_constrained_scorers_obey_the_laws(scorer: str, kind: str) -> None:
    inner, given = SCORERS[scorer](), task(5, 7)
    generator = torch.Generator().manual_seed(1)
    for seed in range(3):
        made = Constrained(inner, EVERY[kind](random.Random(seed)))
        tokens = torch.randint(3, SYMBOLS - 2, (5, 6), generator=generator)
        testing.check_scorer(made, given.sources, torch.cat([given.prompt, tokens], 1))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_searches_obey_the_laws_within_constraints(kind: str, search: SearchBlueprint) -> None:
    for scorer in (Table(SYMBOLS), Recurrent(SYMBOLS), with_holes(SYMBOLS)):
        made = Constrained(scorer, EVERY[kind](random.Random(5)))
        testing.check_search(search, made, *task(9, 8))


@pytest.mark.parametrize("kind", EVERY)
def test_a_wide_beam_finds_the_best_that_is_allowed(kind: str) -> None:
    for seed in range(3):
        made = Constrained(Recurrent(5), EVERY[kind](random.Random(seed)))
        given = task(5, 4)
        small = {name: Sequences(s.data % 5, s.lengths) for name, s in given.sources.items()}
        testing.check_beam_exact(made, small, given.prompt, given.limit)


def answers(scorer: Any, search: SearchBlueprint, given: Task) -> list[Answer]:
    """Return every hypothesis of every source."""
    found = search(scorer, scorer.encode(given.sources), given.prompt, given.limit)
    lengths, done = found.lengths.tolist(), found.finished.tolist()
    read, begins = given.sources["source"], given.sources["prefix"]
    rows = []
    for at, strings in enumerate(found.tokens.tolist()):
        source = read.data[at, : int(read.lengths[at])].tolist()
        prefix = begins.data[at, : int(begins.lengths[at])].tolist()
        limit = int(given.limit[at])
        for rank, tokens in enumerate(strings):
            length, finished = lengths[at][rank], done[at][rank]
            if length or rank == 0:
                own = int(given.sources["own"].data[at, 0])
                said = tokens[: length - finished]
                rows.append(Answer(said, finished, source, prefix, own, limit))
    return rows


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_found_obeys(kind: str, search: SearchBlueprint) -> None:
    for seed in range(8):
        case, given = KINDS[kind](random.Random(seed)), task(CASES, 14, seed)
        plain = Table(SYMBOLS, seed)
        found = answers(Constrained(plain, case.constraint), search, given)
        assert len(found) >= CASES
        wrong = [answer for answer in found if not case.obeyed(answer)]
        assert not wrong, wrong[0]
        free = answers(plain, search, given)
        assert not all(map(case.obeyed, free)), "this constraint forbids nothing"


def test_what_obeys_anyway_keeps_its_score() -> None:
    given, plain = task(CASES, 10), Table(SYMBOLS)
    for kind in (*SOFT, "forced prefix"):
        case = KINDS[kind](random.Random(3))
        made = Constrained(plain, case.constraint)
        free, bound = answers(plain, Greedy(), given), answers(made, Greedy(), given)
        same = [a == b for a, b in zip(free, bound, strict=True) if case.obeyed(a) and a.finished]
        assert len(same) > 5, kind
        assert all(same), kind


def test_several_constraints_hold_together() -> None:
    cases = [KINDS[kind](random.Random(1)) for kind in SOFT]
    made = constrained(Table(SYMBOLS), [case.constraint for case in cases])
    for search in SEARCHES:
        found = answers(made, search, task(CASES, 14))
        assert all(case.obeyed(answer) for answer in found for case in cases)


def test_said_symbols_become_less_likely_and_all_add_up_to_one() -> None:
    given, plain = task(6, 4), Table(SYMBOLS)
    made = Constrained(plain, RepetitionPenalty(2.0))
    tokens = torch.cat([given.prompt, torch.full((6, 2), 4)], 1)
    testing.check_normalised(made, given.sources, tokens)
    before = plain.extend(tokens, plain.start(plain.encode(given.sources)))[0]
    after = made.extend(tokens, made.start(made.encode(given.sources)))[0]
    torch.testing.assert_close(after[:, 0], before[:, 0])  # nothing was said yet
    wanted = before[:, 1:].clone()
    wanted[:, :, 4] *= 2.0
    torch.testing.assert_close(after[:, 1:], wanted.log_softmax(2))


def test_what_is_missing_comes_where_the_output_would_end() -> None:
    given, plain, compared = task(CASES, 14), Table(SYMBOLS), 0
    phrase = [5, 8, 3]
    made = Constrained(plain, Required([[phrase]], most, CPU))
    free, bound = answers(plain, Greedy(), given), answers(made, Greedy(), given)
    for one, other in zip(free, bound, strict=True):
        size = len(one.tokens)
        if one.finished and size + len(phrase) < one.limit and not within(phrase, one.tokens):
            # An output that ends with a part of the phrase needs the rest of it alone.
            said = max(n for n in range(3) if one.tokens[size - n :] == phrase[:n])
            assert other.tokens[: size - said + 3] == [*one.tokens[: size - said], *phrase]
            compared += 1
    assert compared > 20
