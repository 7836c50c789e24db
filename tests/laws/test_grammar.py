"""Outputs within a grammar are its sentences, and the best of them that there are."""

from __future__ import annotations

import itertools
import random
import re
from collections import deque
from typing import Any

import pytest
import torch
from grammars import derives, random_rules
from torch import Tensor
from toys import EOS, Recurrent, Table

from transduce.search import (
    Batch,
    Beam,
    Ensemble,
    Exact,
    Greedy,
    Sample,
    Scorer,
    SearchBlueprint,
    answers,
)
from transduce.search.constrain import Constrained, Grammar, Matching, Nfa, Texts, holds
from transduce.search.constrain.context_free import Rules
from transduce.search.stepwise import StepwiseSearch
from transduce.sequences import Sequences

CPU = torch.device("cpu")
# tokens end within terminals of the grammars, and span several
TEXTS: list[str | bytes | None] = [None, None, None, "a", "b", "(", ")", "ab", ")(a", "((", "b)"]
LETTERS = "ab()"
LIMIT = 12
NESTED: Rules = [[[1, 0], []], [[((40, 40),), 0, ((41, 41),)], [((97, 98),)]]]  # of brackets


def spelt(tokens: list[int]) -> str:
    return "".join(str(TEXTS[token]) for token in tokens)


def sources(number: int, seed: int = 0) -> dict[str, Sequences]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, len(TEXTS), (number, 4), generator=generator)
    return {"source": Sequences(rows, torch.full((number,), 4))}


def test_sentences_are_those_that_can_be_derived() -> None:
    chance, sentences = random.Random(0), 0
    for _ in range(250):
        rules = random_rules(chance, "ab")
        grammar = Grammar(rules, 0)
        for size in range(6):
            for letters in itertools.product("ab", repeat=size):
                text = "".join(letters)
                wanted = derives(rules, 0, text)
                assert holds(grammar, text) == wanted, (rules, text)
                sentences += wanted
        assert grammar.empty == (not grammar.first)
    assert sentences > 800


def test_every_place_leads_to_a_sentence() -> None:
    chance = random.Random(1)
    for _ in range(300):
        rules = random_rules(chance, "ab")
        grammar = Grammar(rules, 0)
        places, edges = {grammar.first} - {0}, list[tuple[int, int]]()
        for _ in range(3):
            edges += [(place, grammar.read(place, letter)) for place in places for letter in "ab"]
            places |= {behind for _, behind in edges} - {0}
        for place in places:  # breadth first, until there is one
            reached = dict.fromkeys([place])
            waiting = deque(reached)
            while not grammar.ends(here := waiting.popleft()):
                assert len(reached) < 10_000
                further = [grammar.read(here, letter) for letter in "ab"]
                waiting.extend(one for one in further if one and one not in reached)
                reached |= dict.fromkeys(further)


def test_long_lists_and_expressions_need_few_columns() -> None:
    a, b, comma = (((ord(letter), ord(letter)),) for letter in "ab,")
    lists: list[Rules] = [
        [[[0, comma, a], [a]]],  # left and
        [[[a, comma, 0], [a]]],  # right recursion
        [[[1], [1, comma, 0]], [[a], [a, b]]],
    ]
    for rules in lists:
        grammar = Grammar(rules, 0)
        assert holds(grammar, ",".join("a" * 5000))
        assert len(grammar.columns) < 9


def test_what_no_text_fulfils_is_known_at_once() -> None:
    a: Any = ((97, 97),)
    assert Grammar([[[0, a]]], 0).empty
    assert Grammar([[[1, a]], [[0, a], [1]]], 0).empty
    assert Grammar([[[a]]], 0, lambda _: False).empty
    grammar = Grammar([[[a, 1], [a]], [[1]]], 0)  # one alternative leads nowhere
    assert not grammar.empty
    assert not grammar.read(grammar.read(grammar.first, "a"), "a")


SEARCHES: list[StepwiseSearch] = [
    Greedy(),
    Beam(width=4, n_best=4),
    Sample(samples=3),
]


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("ensemble", [False, True])
def test_whatever_is_found_is_a_sentence(search: StepwiseSearch, ensemble: bool) -> None:
    """Also where sources take the places of others, and models of an ensemble agree."""
    chance, finished, cut = random.Random(7), 0, 0
    for seed in range(25):
        rules: Rules = NESTED if seed % 5 == 0 else random_rules(chance, LETTERS)
        one = Table(len(TEXTS), seed)
        plain: Scorer = Ensemble((one, Table(len(TEXTS), seed + 1))) if ensemble else one
        grammar, sentences = Grammar(rules, 0), set[str]()
        made = Constrained(plain, Matching(grammar, Texts(TEXTS, spaced=False), CPU))
        batches = []
        for part in range(3):
            read = sources(15, seed * 3 + part)
            if ensemble:
                read["2:source"] = read["source"]
            prompt, limit = torch.ones(15, 1, dtype=torch.long), torch.full((15,), LIMIT)
            batches.append(Batch(made.encode(read), prompt, limit))
        for found in answers(search, made, batches, 20):
            for tokens, size, done in zip(
                found.tokens.flatten(0, 1).tolist(),
                found.lengths.flatten().tolist(),
                found.finished.flatten().tolist(),
                strict=True,
            ):
                text = spelt(tokens[: size - done])
                place = grammar.first
                for letter in text:
                    place = grammar.read(place, letter)
                assert place or not size
                if done and text not in sentences:
                    assert derives(rules, 0, text)
                    sentences.add(text)
                finished, cut = finished + done, cut + (not done)
    assert finished > 300
    assert cut > 20


def test_the_best_sentence_is_the_best_of_all_strings_that_are_sentences() -> None:
    texts: list[str | bytes | None] = [None, None, None, "a", "(a", "a)", "()"]
    chance, compared, size = random.Random(3), 0, 4
    strings = [
        list(string)
        for length in range(size)
        for string in itertools.product(range(3, len(texts)), repeat=length)
    ]
    for seed in range(60):
        rules = random_rules(chance, "a()")
        plain: Scorer = Recurrent(len(texts)) if seed % 2 else Table(len(texts), seed)
        read = {"source": Sequences(torch.tensor([[3 + seed % 4, EOS]]), torch.tensor([2]))}
        memory = plain.encode(read)
        scores = []
        for string in strings:
            if derives(rules, 0, "".join(str(texts[token]) for token in string)):
                tokens = torch.tensor([[1, *string, EOS]])
                said, _ = plain.extend(tokens[:, :-1], plain.start(memory))
                scores.append(float(said[0].gather(1, tokens[0, 1:, None]).sum()))
        made = Constrained(plain, Matching(Grammar(rules, 0), Texts(texts, spaced=False), CPU))
        searches: tuple[SearchBlueprint, ...] = (Exact(), Beam(width=len(strings)))
        for search in searches:
            prompt, limit = torch.ones(1, 1, dtype=torch.long), torch.tensor([size])
            found = search(made, made.encode(read), prompt, limit)
            assert bool(found.finished[0, 0]) == bool(scores)
            if scores and isinstance(search, Exact):
                assert float(found.log_probs[0, 0]) == pytest.approx(max(scores), abs=1e-4)
        compared += len(scores) > 1
    assert compared > 15


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_whoever_writes_letters_finishes_within_the_limit(search: StepwiseSearch) -> None:
    """If there is a sentence that short."""
    chance, tight = random.Random(11), 0
    for seed in range(40):
        rules = NESTED if seed % 5 == 0 else random_rules(chance, "ab()")
        grammar, limit = Grammar(rules, 0), chance.randint(1, 9)
        if grammar.empty:
            continue

        def most(lengths: Tensor, limit: int = limit) -> Tensor:
            return torch.full_like(lengths, limit)

        plain, read = Table(len(TEXTS), seed), sources(20, seed)
        made = Constrained(plain, Matching(grammar, Texts(TEXTS, spaced=False), CPU, most))
        prompt = torch.ones(20, 1, dtype=torch.long)
        found = search(made, made.encode(read), prompt, most(read["source"].lengths))
        shortest = min(size for size in range(40) if reached(rules, size))
        assert grammar.left(grammar.first) == shortest
        assert found.finished[:, 0].all() == (shortest < limit), (rules, limit)
        tight += limit - shortest in range(1, 5)
    assert tight > 5


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("expression", ["(a|b)*a", r"a.{2,4}b", "[^b]+b", "(ab|bb){2,3}", r"\(+a?"])
def test_whoever_matches_finishes_within_the_limit(search: StepwiseSearch, expression: str) -> None:
    """If there is a match that short."""
    nfa = Nfa(expression)
    strings = ("".join(s) for size in range(6) for s in itertools.product(LETTERS, repeat=size))
    shortest = len(next(string for string in strings if re.fullmatch(expression, string)))
    assert nfa.left(nfa.first) == shortest
    for limit in range(shortest + 1, 8):

        def most(lengths: Tensor, limit: int = limit) -> Tensor:
            return torch.full_like(lengths, limit)

        read = sources(20, limit)
        matching = Matching(nfa, Texts(TEXTS, spaced=False), CPU, most)
        made = Constrained(Table(len(TEXTS), limit), matching)
        prompt = torch.ones(20, 1, dtype=torch.long)
        found = search(made, made.encode(read), prompt, most(read["source"].lengths))
        assert found.finished[:, 0].all(), limit


def reached(rules: Rules, size: int) -> bool:
    """Return whether there is a sentence of so many characters: strings do not matter, sizes do."""
    sizes = [set[int]() for _ in rules]
    total = -1
    while total != (total := sum(map(len, sizes))):
        for found, ways in zip(sizes, rules, strict=True):
            for way in ways:
                here = {0}
                for symbol in way:
                    steps = sizes[symbol] if isinstance(symbol, int) else {1}
                    here = {at + step for at in here for step in steps if at + step <= size}
                found |= here
    return size in sizes[0]
