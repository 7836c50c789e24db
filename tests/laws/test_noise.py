"""What every noise obeys, and what each does how often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.data.noise import (
    MASK,
    DeleteBlueprint,
    Ids,
    InfillBlueprint,
    MaskBlueprint,
    MassBlueprint,
    Noise,
    NoiseBlueprint,
    PermuteBlueprint,
    RotateBlueprint,
    SpansBlueprint,
)
from transduce.data.shuffle import uniform
from transduce.text.codec import CodecBlueprint, TextCodec

WORDS = [f"w{number}" for number in range(200)]
EVERY: list[NoiseBlueprint] = [
    MaskBlueprint(rate=0.3),
    DeleteBlueprint(rate=0.9),
    InfillBlueprint(),
    InfillBlueprint(rate=0.9, mean=0.3),
    InfillBlueprint(rate=0.5, mean=60.0),
    PermuteBlueprint(),
    RotateBlueprint(),
    SpansBlueprint(),
    SpansBlueprint(rate=0.9, mean=1.0),
    SpansBlueprint(rate=0.5, mean=1.0, most=2),
    MassBlueprint(),
    MassBlueprint(rate=0.01),
]
MARKS = list(dict.fromkeys(mark for noise in EVERY for mark in noise.marks))
CODEC = TextCodec.learn(
    CodecBlueprint.model_validate({"tokens": "words"}), [" ".join([*WORDS, "stop."])], MARKS
)
FIRST_MARK = CODEC.size - len(MARKS)
(MASKED,) = CODEC.encode(MASK)
NAMES = [str(noise) for noise in EVERY]


def ids(size: int) -> Ids:
    """Return so many different symbols (as far as there are)."""
    return np.array(CODEC.encode(" ".join((WORDS * 9)[:size])))


def numbers(size: int, key: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    row: np.ndarray[tuple[int], np.dtype[np.float64]] = uniform(np.array([key]), 2 * size + 2)[0]
    return row


def real(ids: Ids) -> list[int]:
    return [id for id in ids.tolist() if id < FIRST_MARK]


@pytest.mark.parametrize("blueprint", EVERY, ids=NAMES)
@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 120), key=st.integers(0, 2**63 - 1))
def test_noise_is_a_function_that_lengthens_nothing_and_invents_nothing(
    blueprint: NoiseBlueprint, size: int, key: int
) -> None:
    noise, text = blueprint.build(CODEC), ids(size)
    source, target = noise(text, numbers(size, key))
    again = noise(text, numbers(size, key))
    assert text.tolist() == ids(size).tolist(), "a noise changes no text in place"
    assert source.tolist() == again.source.tolist()
    most = [int(found[0]) for found in blueprint.longest(np.array([size]))]
    assert 1 <= len(source) <= most[0] <= size
    assert not Counter(real(source)) - Counter(text.tolist())
    assert (target is not None) == blueprint.divides
    if target is not None:
        assert 1 <= len(target) <= most[1] <= max(size, 2)


@pytest.mark.parametrize("blueprint", [b for b in EVERY if b.divides], ids=str)
@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 250), key=st.integers(0, 2**63 - 1))
def test_source_and_target_hold_every_symbol_once(
    blueprint: NoiseBlueprint, size: int, key: int
) -> None:
    text = ids(size)
    source, target = blueprint.build(CODEC)(text, numbers(size, key))
    assert target is not None
    assert put_together(source, target) == text.tolist()
    most = [int(found[0]) for found in blueprint.longest(np.array([size]))]
    assert [len(source), len(target)] == most, "what these make is as long as they say"


def put_together(source: Ids, target: Ids) -> list[int]:
    """Put what the target says in place of the marks of the source."""
    if MASKED in source:  # MASS: each mask is one symbol
        said = iter(target.tolist())
        return [next(said) if id == MASKED else id for id in source.tolist()] + list(said)
    spans: dict[int, list[int]] = {}
    for id in target.tolist():
        spans.setdefault(id, []) if id >= FIRST_MARK else spans[max(spans)].append(id)
    assert all(spans.values()), "no span is empty"
    marks = [id for id in source.tolist() if id >= FIRST_MARK]
    assert marks == list(spans), "both sides have the same marks in the same order"
    if len(source) > len(marks):
        pairs = zip(source.tolist(), source.tolist()[1:], strict=False)
        assert not any(min(pair) >= FIRST_MARK for pair in pairs), "spans do not touch"
    return [i for id in source.tolist() for i in (spans[id] if id >= FIRST_MARK else [id])]


def sources(noise: Noise, size: int, count: int = 3000) -> list[Ids]:
    return [noise(ids(size), numbers(size, key)).source for key in range(count)]


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_so_many_symbols_go(rate: float) -> None:
    masked = sources(MaskBlueprint(rate=rate).build(CODEC), 37)
    assert np.mean([(found == MASKED).mean() for found in masked]) == pytest.approx(rate, abs=0.01)
    deleted = sources(DeleteBlueprint(rate=rate).build(CODEC), 37)
    assert 1 - np.mean([len(found) / 37 for found in deleted]) == pytest.approx(rate, abs=0.01)
    infilled = sources(InfillBlueprint(rate=rate).build(CODEC), 37)
    gone = [1 - len(real(found)) / 37 for found in infilled]
    assert np.mean(gone) == pytest.approx(rate, abs=0.005)
    for blueprint in (SpansBlueprint(rate=rate), MassBlueprint(rate=rate)):
        left = [
            len([i for i in real(found) if i != MASKED])
            for found in sources(blueprint.build(CODEC), 37, 20)
        ]
        assert set(left) == {37 - round(rate * 37)}


def test_any_place_is_as_likely_as_any_other() -> None:
    for blueprint in (InfillBlueprint(), SpansBlueprint(), MaskBlueprint(), DeleteBlueprint()):
        kept = np.zeros(30)
        text = ids(30)
        for source in sources(blueprint.build(CODEC), 30):
            kept += np.isin(text, source)
        inner = kept[3:-3] / 3000
        assert inner.max() - inner.min() < 0.08, blueprint


def test_spans_of_infilling_have_poisson_lengths() -> None:
    noise = InfillBlueprint(rate=0.3, mean=3.0).build(CODEC)
    text = ids(200)
    spans = gone = 0
    for key in range(300):
        source = noise(text, numbers(200, key)).source.tolist()
        count = source.count(MASKED)
        spans += count
        gone += 200 - (len(source) - count)
    assert 2.7 < gone / spans < 3.05, "the last span of a text is cut short"


def test_sentences_are_permuted_whole() -> None:
    noise = PermuteBlueprint().build(CODEC)
    text = np.array(CODEC.encode("w1 w2 stop. w3 stop. w4"))
    found = {CODEC.decode(noise(text, numbers(6, key)).source.tolist()) for key in range(200)}
    whole = ["w1 w2 stop.", "w3 stop.", "w4"]
    orders = ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
    assert found == {" ".join(whole[place] for place in order) for order in orders}


def test_a_text_is_rotated_to_any_beginning() -> None:
    noise = RotateBlueprint().build(CODEC)
    text = ids(5)
    found = {tuple(noise(text, numbers(5, key)).source.tolist()) for key in range(200)}
    assert found == {tuple(np.roll(text, -n).tolist()) for n in range(5)}


def test_every_noise_is_held_to_this() -> None:
    assert {type(blueprint) for blueprint in EVERY} == set(NoiseBlueprint.choices().values())
