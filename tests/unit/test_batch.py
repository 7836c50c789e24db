from __future__ import annotations

import pytest
import torch

from transduce.data.batch import Batch
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS


def batch() -> Batch:
    source = Sequences.stack([torch.tensor([7, EOS]), torch.tensor([7, 8, EOS])])
    target = Sequences.stack([torch.tensor([BOS, 5, 6, EOS]), torch.tensor([BOS, 9, EOS])])
    return Batch({"source": source}, target, torch.tensor([4, 0]))


def real(rows: Sequences) -> list[list[int]]:
    return [row[:size].tolist() for row, size in zip(rows.data, rows.lengths, strict=True)]


def test_inputs_and_labels_are_the_target_shifted_by_one() -> None:
    assert real(batch().inputs) == [[BOS, 5, 6], [BOS, 9]]
    assert real(batch().labels) == [[5, 6, EOS], [9, EOS]]
    assert batch().tokens == 5
    assert len(batch()) == 2


def test_views_copy_nothing() -> None:
    one = batch()
    assert one.target is not None
    assert one.inputs.data.data_ptr() == one.target.data.data_ptr()


def test_a_batch_without_targets_says_so() -> None:
    bare = Batch(batch().sources, None, batch().index)
    assert bare.to(torch.device("cpu")).target is None
    with pytest.raises(ValueError, match="no target"):
        _ = bare.labels


def test_moving_keeps_everything() -> None:
    moved = batch().to(torch.device("meta"))
    assert moved.target is not None
    tensors = [moved.index, moved.target.data, moved.sources["source"].lengths]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
