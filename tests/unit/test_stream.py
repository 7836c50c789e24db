from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transduce.data.store import Encoding, LimitsBlueprint, Store, prepare
from transduce.data.stream import (
    BatchBlueprint,
    Choice,
    Position,
    batches,
    by_length,
    choices,
    fill,
)
from transduce.data.tables import TsvBlueprint
from transduce.text.codec import CodecBlueprint, TextBlueprint, learn_codecs

SIZE = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("stream")
    numbers = random.Random(0)
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    lines = [" ".join(numbers.choices(words, k=numbers.randint(1, 9))) for _ in range(SIZE)]
    table = "".join(f"{line}\t{line.upper()}\n" for line in lines)
    (folder / "t").write_bytes(table.encode())
    sampled = {"kind": "sentencepiece", "size": 284, "sampling": {"variants": 3}}
    source = CodecBlueprint.model_validate({"tokens": sampled})
    target = CodecBlueprint.model_validate({"tokens": "bytes"})
    codecs = learn_codecs(TextBlueprint(source=source, target=target), lines, [])
    how = Encoding(codecs, LimitsBlueprint(), sampled=True)
    return prepare(TsvBlueprint(path="t"), folder, how, folder / "cache")


blueprints = st.builds(BatchBlueprint, tokens=st.integers(1, 600), pool=st.integers(20, 400))
seeds = st.integers(0, 2**40)


def epoch(
    store: Store, blueprint: BatchBlueprint, seed: int, number: int
) -> list[tuple[Position, Choice]]:
    found = []
    for position, choice in choices(store, blueprint, seed, Position(number, 0)):
        found.append((position, choice))
        if position.epoch > number:
            return found
    raise AssertionError("the stream ended")


def same(one: Choice, other: Choice) -> bool:
    return one.rows.tolist() == other.rows.tolist() and all(
        one.picks[side].tolist() == other.picks[side].tolist() for side in one.picks
    )


@settings(max_examples=15)
@given(blueprint=blueprints, seed=seeds, number=st.integers(0, 9))
def test_every_row_once_an_epoch_and_no_batch_too_large(
    store: Store, blueprint: BatchBlueprint, seed: int, number: int
) -> None:
    found = epoch(store, blueprint, seed, number)
    rows = np.concatenate([choice.rows for _, choice in found])
    assert sorted(rows.tolist()) == list(range(SIZE))
    for _, choice in found:
        longest = store.lengths(*choice).max()
        assert len(choice.rows) == 1 or len(choice.rows) * longest <= blueprint.tokens


@settings(max_examples=15)
@given(blueprint=blueprints, seed=seeds, number=st.integers(0, 9), data=st.data())
def test_to_seek_is_to_skip(
    store: Store, blueprint: BatchBlueprint, seed: int, number: int, data: st.DataObject
) -> None:
    found = epoch(store, blueprint, seed, number)
    skipped = data.draw(st.integers(0, len(found)))
    here = choices(store, blueprint, seed, Position(number, skipped))
    after = list(islice(here, len(found) - skipped + 2))
    expected = [*found[skipped:], *epoch(store, blueprint, seed, number + 1)]
    for (position, choice), (other, wanted) in zip(after, expected, strict=False):
        assert position == other
        assert same(choice, wanted)


def test_positions_count_on_and_name_the_batch_that_follows(store: Store) -> None:
    blueprint = BatchBlueprint(tokens=500, pool=100)
    positions = [position for position, _ in epoch(store, blueprint, 1, 4)]
    last = len(positions)
    assert positions == [*(Position(4, number) for number in range(1, last)), Position(5, 0)]
    for position, batch in islice(batches(store, blueprint, 1), 5):
        _, following = next(batches(store, blueprint, 1, position))
        _, wanted = list(islice(batches(store, blueprint, 1), position.batch + 1))[-1]
        assert torch.equal(following.index, wanted.index)
        assert not torch.equal(batch.index, following.index)


def test_batches_hold_what_was_chosen(store: Store) -> None:
    blueprint = BatchBlueprint(tokens=500)
    pairs = zip(batches(store, blueprint, 3), choices(store, blueprint, 3), strict=False)
    for (position, batch), (other, choice) in islice(pairs, 30):
        assert position == other
        wanted = store.batch(*choice)
        assert batch.index.tolist() == choice.rows.tolist()
        assert torch.equal(batch.sources["source"].data, wanted.sources["source"].data)


def test_seeds_and_epochs_shuffle_differently(store: Store) -> None:
    blueprint = BatchBlueprint(tokens=500, pool=100)
    orders = [
        np.concatenate([choice.rows for _, choice in epoch(store, blueprint, seed, number)])
        for seed in (0, 1)
        for number in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert all(np.abs(np.corrcoef(order, np.arange(SIZE))[0, 1]) < 0.2 for order in orders)


def test_batches_do_not_come_by_length(store: Store) -> None:
    blueprint = BatchBlueprint(tokens=300)
    lengths = [store.lengths(*choice).max() for _, choice in epoch(store, blueprint, 0, 0)]
    assert np.abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.4


def test_every_variant_has_its_turn(store: Store) -> None:
    blueprint = BatchBlueprint(tokens=500)
    seen = np.zeros((40, SIZE), np.int64)
    for number in range(40):
        for _, choice in epoch(store, blueprint, 0, number):
            assert set(choice.picks) == {"source"}
            seen[number, choice.rows] = choice.picks["source"]
    shares = np.bincount(seen.flatten(), minlength=3) / seen.size
    assert np.abs(shares - 1 / 3).max() < 0.02
    assert (seen.min(axis=0) < seen.max(axis=0)).all()


def test_the_variants_of_the_two_sides_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    lines = [f"some words {n}" for n in range(200)]
    (tmp_path / "t").write_text("".join(f"{line}\t{line}\n" for line in lines))
    tokens = {"kind": "sentencepiece", "size": 278, "sampling": {"variants": 2}}
    side = CodecBlueprint.model_validate({"tokens": tokens})
    codecs = learn_codecs(TextBlueprint(source=side, joint=True), lines, lines)
    how = Encoding(codecs, LimitsBlueprint(), sampled=True)
    both = prepare(TsvBlueprint(path="t"), tmp_path, how, tmp_path / "cache")
    picks = [choice.picks for _, choice in epoch(both, BatchBlueprint(), 0, 0)]
    source, target = (np.concatenate([pick[name] for pick in picks]) for name in both.variants)
    assert 0.35 < (source == target).mean() < 0.65


def test_little_is_padded(store: Store) -> None:
    blueprint = BatchBlueprint(tokens=500)
    found = fill(store, blueprint, 0)
    assert found.batches == len(epoch(store, blueprint, 0, 0))
    assert 0.75 * found.padded < found.real <= found.padded
    alone = fill(store, BatchBlueprint(tokens=1), 0)
    assert alone.batches == SIZE
    assert alone.real == alone.padded


def test_a_position_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="epoch 2 has 300 batches, there is no 301"):
        next(batches(store, BatchBlueprint(tokens=1), 0, Position(2, 301)))


def test_the_order_never_changes(tmp_path: Path) -> None:
    """A run that resumes under another version of anything must see the same order."""
    (tmp_path / "t").write_text("".join(f"{'x' * (n % 17 + 1)}\t{n}\n" for n in range(200)))
    side = CodecBlueprint.model_validate({"tokens": "bytes"})
    how = Encoding(learn_codecs(TextBlueprint(source=side), [], []), LimitsBlueprint())
    plain = prepare(TsvBlueprint(path="t"), tmp_path, how, tmp_path / "cache")
    _, choice = next(choices(plain, BatchBlueprint(tokens=40, pool=150), 5))
    assert choice.rows.tolist() == [186, 152]
    assert choice.picks == {}


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    tokens=st.integers(1, 200),
    rows=st.none() | st.integers(1, 10),
)
def test_batches_for_prediction(lengths: list[int], tokens: int, rows: int | None) -> None:
    sizes = np.array(lengths, np.int64)
    found = by_length(sizes, tokens, rows)
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    assert sorted(lengths, reverse=True) == [lengths[place] for batch in found for place in batch]
    for batch in found:
        assert len(batch) == 1 or len(batch) * sizes[batch].max() <= tokens
        assert rows is None or len(batch) <= rows
