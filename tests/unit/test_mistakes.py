"""What is answered to a mistake in a configuration, and how often that is what helps."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest
from made_up import FULL, SHORT, Experiment, mistake, mistakes

import transduce.experiment
from transduce.blueprint import Blueprint, dump, parse, schema
from transduce.blueprint.shape import walk
from transduce.problem import Problem

MISTAKES = """
zzz: {}
! 3: zzz: no such key; choose from (data, encoder, training, metrics, weights, note)

encodr: {}
! 3: encodr: no such key; did you mean 'encoder'?

steps: 3
! 3: steps: no such key; it belongs in training

beta: 3
! 3: beta: no such key; it belongs in metrics of kind chrf

encoder:
  kind: recurrent
  heads: 3
! 5: encoder.heads: no such key; it belongs in encoder of kind transformer

encoder: transfomer
! 3: encoder: no such choice 'transfomer'; did you mean 'transformer'?
! (recurrent, transformer, stack)

encoder:
  width: 8
  kind: transfomer
! 5: encoder.kind: no such choice 'transfomer'; did you mean 'transformer'?
! (recurrent, transformer, stack)

encoder:
  width: 8
  knid: transformer
! 5: encoder.knid: no such key; did you mean 'kind'?

encoder: {width: 8}
! 3: encoder.kind: this key is missing; choose (recurrent, transformer, stack)

encoder: {kind: 3}
! 3: encoder.kind: expected one of (recurrent, transformer, stack), found 3

encoder: 3
! 3: encoder: expected one of (recurrent, transformer, stack), found 3

encoder: stack
! 3: encoder.members: this key is missing; give it a list
! (each one of (recurrent, transformer, stack))

encoder: {kind: stack, members: [recurrent, {kind: stack,
  members: [gru]}]}
! 4: encoder.members.1.members.0: no such choice 'gru'; (recurrent, transformer, stack)

training: {steps: '3'}
! 3: training.steps: expected a whole number >= 1, found '3'; write 3 without quotes

training: {steps: 1_000}
! 3: training.steps: expected a whole number >= 1, found '1_000'; write 1000 without quotes

training: {steps: 1e4}
! 3: training.steps: expected a whole number >= 1, found 10000.0; write 10000

training: {steps: true}
! 3: training.steps: expected a whole number >= 1, found true

training: {steps: 0}
! 3: training.steps: expected a whole number >= 1, found 0

training:
  steps:
! 4: training.steps: expected a whole number >= 1, found null

training: {smoothing: 1}
! 3: training.smoothing: expected a number >= 0 and < 1, found 1

training: {smoothing: .nan}
! 3: training.smoothing: expected a number >= 0 and < 1, found .nan; it must be finite

training: {learning_rate: 1e999}
! 3: training.learning_rate: expected a number > 0, found .inf; it must be finite

training: {patience: forevr}
! 3: training.patience: expected a whole number or forever, found 'forevr';
! did you mean 'forever'?

training: {precision: bfloat}
! 3: training.precision: expected one of (float32, bfloat16) or null, found 'bfloat';
! did you mean 'bfloat16'?

encoder: {kind: recurrent, bidirectional: yes}
! 3: encoder.bidirectional: expected true or false, found 'yes'; write true

encoder: {kind: recurrent, cell: no}
! 3: encoder.cell: no such choice 'no'; (lstm, gru)

encoder: {kind: transformer, heads: 3}
! 3: encoder: 3 heads do not divide width 256; change one

metrics: bleu
! 3: metrics: expected a list (each one of (bleu, chrf)), found 'bleu'; write [bleu]

metrics: [bleu,
  chfr]
! 4: metrics.1: no such choice 'chfr'; did you mean 'chrf'? (bleu, chrf)

weights: {a: 0}
! 3: weights.a: expected a number > 0, found 0

weights: [3]
! 3: weights: expected a mapping of names to a number > 0, found a list of 1

note: 3
! 3: note: expected text, found 3; write it in quotes: "3"
"""

DATA_MISTAKES = """
note: x
! 1: data: this key is missing; give it a mapping with training, language

data: {}
! 2: data: these keys are missing: training, language

- 1
! 1: expected a mapping with data, found a list of 1

data:1
! 1: expected a mapping with data, found 'data:1'; a colon needs a space behind it

data: {training: [], language: de}
! 2: data.training: expected a list of at least 1 (each a path), found a list of 0

data: {training: a, language: de}
! 2: data.training: expected a list of at least 1 (each a path), found 'a'; write [a]

data: {training: [3], language: de}
! 2: data.training.0: expected a path, found 3

data: {training: [a], language: de, limits: [1, 2, 3]}
! 2: data.limits: expected a list of 2 (a whole number, a whole number), found a list of 3

data: {training: [a], language: de, limits: [1]}
! 2: data.limits: expected a list of 2 (a whole number, a whole number), found a list of 1
"""


def cases(text: str) -> list[tuple[str, str]]:
    """Split blocks of YAML, each with the expected message behind exclamation marks."""
    blocks = [block.partition("\n! ") for block in text.strip().split("\n\n")]
    return [(yaml, message.replace("\n!", "")) for yaml, _, message in blocks]


@pytest.mark.parametrize(
    ("text", "message"),
    [(f"{SHORT}\n{yaml}", message) for yaml, message in cases(MISTAKES)]
    + [(f"\n{yaml}", message) for yaml, message in cases(DATA_MISTAKES)],
)
def test_a_mistake_is_one_line_that_says_what_to_do(text: str, message: str) -> None:
    assert mistake(text) == f"g2p.yaml:{message}"


def test_several_mistakes_are_shown_in_the_order_of_the_file() -> None:
    text = (
        "training:\n  stepz: 3\n  patience: x\n"
        "data:\n  languag: de\n  training: a\nmetrics: 3\nweights: 3\nnote: 3\n"
    )
    found = mistakes(text)
    assert [re.sub(r"; .*|, found.*", "", line) for line in found] == [
        "g2p.yaml:2: training.stepz: no such key",
        "g2p.yaml:3: training.patience: expected a whole number or forever",
        "g2p.yaml:5: data.languag: no such key",  # and not that language is missing, too
        "g2p.yaml:6: data.training: expected a list of at least 1 (each a path)",
        "g2p.yaml:7: metrics: expected a list (each one of (bleu, chrf))",
        "and 2 more",
    ]


MOST = 150  # misspellings tried of a file


class Mutation(NamedTuple):
    """One word of a file, misspelt."""

    text: str
    word: str
    place: str


def misspellings(word: str, chance: random.Random) -> Iterator[str]:
    letters = "abcdefghijklmnopqrstuvwxyz_"
    for at in chance.sample(range(len(word) - 1), min(2, len(word) - 1)):
        yield word[:at] + word[at + 1 :]
        yield word[:at] + chance.choice(letters) + word[at:]
        yield word[:at] + chance.choice(letters) + word[at + 1 :]
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def mutations(text: str, words: set[str]) -> Iterator[Mutation]:
    """Misspell every key, literal and kind of a file: drop, add, change and swap letters."""
    chance = random.Random(1)
    lines = text.split("\n")
    above: list[tuple[int, str]] = []  # depth and key of what the line stands in
    for number, line in enumerate(lines):
        indent, dash, rest = re.match(r"( *)(- )?(.*)", line).groups("")  # type: ignore[union-attr]
        if dash:
            before = [int(key) for depth, key in above if depth == len(indent)]
            above = [item for item in above if item[0] < len(indent)]
            above.append((len(indent), str(before[0] + 1 if before else 0)))
        if not (entry := re.fullmatch(r"(\w+):(?: (\w+))?", rest)):
            continue
        name, value = entry.groups()
        depth = len(indent + dash)
        above = [item for item in above if item[0] < depth]
        around = "".join(f"{key}." for _, key in above)
        for word in {name, value} & words:
            for wrong in misspellings(word, chance):
                if wrong not in words:
                    changed = [*lines[:number], line.replace(word, wrong, 1), *lines[number + 1 :]]
                    place = f"g2p.yaml:{number + 1}: {around}{wrong if word == name else name}: "
                    yield Mutation("\n".join(changed), word, place)
        above.append((depth, name))


def words_of(kind: type[Blueprint]) -> set[str]:
    text = json.dumps(schema(kind))
    tree = json.loads(text)["$defs"].values()
    keys = {key for part in tree for key in part.get("properties", {})}
    values = re.findall(r'"(?:const)": "(\w+)"', text)
    literals = [
        w for found in re.findall(r'"enum": \[([^\]]*)\]', text) for w in re.findall(r"\w+", found)
    ]
    return keys | set(values) | set(literals)


def judge(text: str, kind: type[Blueprint]) -> tuple[int, list[str]]:
    """Return how many misspellings were tried and the answers without the right suggestion."""
    tried = list(mutations(text, words_of(kind)))
    tried = tried[:: max(1, len(tried) // MOST)]
    bad = []
    for changed, word, where in tried:
        with pytest.raises(Problem) as caught:
            parse(changed, kind, "g2p.yaml")
        first = str(caught.value).split("\n")[0]
        assert first.startswith(where)
        if f"did you mean {word!r}?" not in first:
            bad.append(f"{word}: {first}")
    return len(tried), bad


TABLE = "{kind: tsv, path: pairs.tsv}"
REAL = f"data: {{train: {TABLE}, dev: {TABLE}}}\n"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Experiment, FULL),
        (Experiment, SHORT + "encoder: recurrent"),
        (transduce.experiment.Experiment, REAL),
        (
            transduce.experiment.Experiment,
            REAL + "model: {encoder: transformer, decoder: transformer}\nsearch: greedy\n",
        ),
    ],
)
def test_misspelt_words_get_the_right_suggestion(kind: type[Blueprint], text: str) -> None:
    count, bad = judge(dump(parse(text, kind), comments=False), kind)
    assert count >= 100
    assert len(bad) <= 0.05 * count, "\n".join(bad)


def test_whatever_is_done_to_a_file_it_is_read_or_answered() -> None:
    chance = random.Random(2)
    letters = "ab9 _-:{}[],'\"#&*!|>%@`~?\n\t\\=<.\u2028\u00a0é😀"
    for _ in range(300):
        text = FULL
        for _ in range(chance.choice([1, 2, 5])):
            start = chance.randrange(len(text))
            end = start + chance.choice([0, 1, 1, 9])
            text = text[:start] + chance.choice(letters) + text[end:]
        with suppress(Problem):  # anything else, and the test fails
            parse(text, Experiment, "g2p.yaml")


def test_parts_that_hold_one_another_are_walked_through_once() -> None:
    """Objectives around objectives: every order of them would be millions of places."""
    places = list(walk(transduce.experiment.Experiment))
    assert len(places) < 20_000
    assert any(path[:3] == ("train", "objective", "objective") for path, _ in places)
