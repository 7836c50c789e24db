from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transduce.sequences import Sequences, positions, reverse


def test_stack_pads_to_the_longest_and_remembers_the_lengths() -> None:
    rows = [torch.tensor([5, 6, 7]), torch.tensor([8]), torch.tensor([9, 4])]
    batch = Sequences.stack(rows)
    assert (len(batch), batch.size) == (3, 3)
    assert batch.lengths.tolist() == [3, 1, 2]
    assert batch.data.dtype == torch.long
    for row, data, size in zip(rows, batch.data, batch.lengths, strict=True):
        assert torch.equal(data[:size], row)


def test_stack_takes_frames_as_well_as_ids() -> None:
    batch = Sequences.stack([torch.randn(4, 3), torch.randn(2, 3)])
    assert batch.data.shape == (2, 4, 3)
    assert batch.data.dtype == torch.float32


def test_mask_is_true_where_a_position_is_real() -> None:
    batch = Sequences(torch.zeros(3, 4), torch.tensor([4, 0, 2]))
    assert batch.mask().long().tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_positions_count_from_zero() -> None:
    assert positions(4, torch.device("cpu")).tolist() == [[0, 1, 2, 3]]


def test_moving_moves_data_and_lengths() -> None:
    moved = Sequences.stack([torch.ones(2)]).to(torch.device("meta"))
    assert moved.data.is_meta
    assert moved.lengths.is_meta


@st.composite
def ragged(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rows in which every value, padding included, occurs once."""
    size = draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(0, size), min_size=1, max_size=4))
    rest = draw(st.sampled_from([(), (2,), (2, 3)]))
    count = torch.Size((len(lengths), size, *rest))
    return torch.arange(count.numel()).view(count), torch.tensor(lengths)


@given(ragged())
@settings(max_examples=100)
def test_reverse_turns_the_real_part_and_leaves_the_padding(batch: tuple[Tensor, Tensor]) -> None:
    x, lengths = batch
    for row, turned, size in zip(x, reverse(x, lengths), lengths, strict=True):
        assert torch.equal(turned[:size], row[:size].flip(0))
        assert torch.equal(turned[size:], row[size:])


@given(ragged())
@settings(max_examples=100)
def test_reversing_twice_changes_nothing(batch: tuple[Tensor, Tensor]) -> None:
    x, lengths = batch
    assert torch.equal(reverse(reverse(x, lengths), lengths), x)
