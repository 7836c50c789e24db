"""A batch of sequences of anything: token ids, frames or pixels, and how long each one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Rows of unequal length, padded to the longest; ``lengths`` alone says what is padding.

    The values beyond a row's length mean nothing and no result may depend on them.
    """

    data: Shaped[Tensor, "B S *rest"]
    lengths: Int[Tensor, "B"]

    @classmethod
    def stack(cls, rows: Sequence[Shaped[Tensor, "_ *rest"]]) -> Sequences:
        """Pad rows to one tensor."""
        lengths = torch.tensor([len(row) for row in rows])
        return cls(torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def size(self) -> int:
        """Positions in the longest row, padding included."""
        return self.data.shape[1]

    def mask(self) -> Bool[Tensor, "B S"]:
        """True where a position is real."""
        return positions(self.size, self.data.device) < self.lengths[:, None]

    def take(self, rows: Int[Tensor, "M"]) -> Sequences:
        """Return some of the rows, padded to the longest of them."""
        lengths = self.lengths[rows]
        return Sequences(self.data[rows, : int(lengths.max())], lengths)

    def to(self, device: torch.device) -> Sequences:
        """Return the same sequences on ``device``."""
        return Sequences(
            self.data.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True)
        )


def positions(size: int, device: torch.device) -> Int[Tensor, "1 S"]:
    """Return 0, 1, ... ``size`` - 1 as one row."""
    return torch.arange(size, device=device)[None]


def reverse(x: Shaped[Tensor, "B S *rest"], lengths: Int[Tensor, "B"]) -> Shaped[Tensor, "B S *r"]:
    """Turn the real part of each row around and leave the padding where it is."""
    place = positions(x.shape[1], x.device)
    index = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    return x.gather(1, index.reshape(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))
