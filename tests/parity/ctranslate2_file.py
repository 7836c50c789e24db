"""Reads the weights of a CTranslate2 model (binary format version 2), for tests alone."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Reader:
    """Takes one thing after another from the bytes of a file."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def number(self, letter: str) -> int:
        """Take a whole number; ``letter`` is its format (B, H, I)."""
        size = struct.calcsize(f"<{letter}")
        (found,) = struct.unpack(f"<{letter}", self.bytes(size))
        return int(found)

    def bytes(self, size: int) -> bytes:
        """Take so many bytes."""
        self.at += size
        return self.content[self.at - size : self.at]

    def text(self) -> str:
        """Take a text that ends with a zero byte."""
        return self.bytes(self.number("H")).removesuffix(b"\0").decode()

    def tensor(self) -> Tensor:
        """Take an array of float32, or of one small whole number (a setting)."""
        shape = [self.number("I") for _ in range(self.number("B"))]
        size, count = self.number("B"), self.number("I")
        dtype: Any = {1: np.int8, 2: np.int16, 4: np.float32}[size]
        values = np.frombuffer(self.bytes(size * count), np.dtype(dtype).newbyteorder("<"))
        return torch.from_numpy(values.astype(dtype).reshape(shape))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return all arrays of a ``model.bin`` by name."""
    reader = Reader(path.read_bytes())
    assert reader.number("I") == 2, "the version of the format"
    assert (reader.text(), reader.number("I")) == ("TransformerBase", 2)
    count = reader.number("I")
    weights = {reader.text(): reader.tensor() for _ in range(count)}
    assert reader.at == len(reader.content)
    return weights
