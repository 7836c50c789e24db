"""A frozen list of symbols: pieces of text and the numbers that models know them by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from transduce.problem import Problem

UNK: Final = 0
BOS: Final = 1
EOS: Final = 2
SPECIALS: Final = ("<unk>", "<s>", "</s>")  # there is no padding symbol: lengths are the truth
BYTES: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))


class Vocabulary:
    """The symbols of one side: the specials first, then pieces of text, each once.

    Text can never spell a special symbol: looking up ``</s>`` answers UNK, as for any unknown
    piece. A vocabulary that holds the 256 pieces ``BYTES`` spells whatever it does not know.
    """

    spells: bool

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = (*SPECIALS, *pieces)
        self._ids = {piece: id for id, piece in enumerate(self._pieces) if id >= len(SPECIALS)}
        for id, piece in enumerate(self._pieces):
            if not piece or "\n" in piece:
                raise ValueError(f"piece {id} is empty or holds a line break: {piece!r}")
            if id >= len(SPECIALS) and (piece in SPECIALS or self._ids[piece] != id):
                raise ValueError(f"piece {id} is in the vocabulary twice: {piece!r}")
        self.spells = all(byte in self._ids for byte in BYTES)

    def ids(self, pieces: Iterable[str]) -> list[int]:
        """Return the number of each piece, UNK for one that is not here."""
        known = self._ids
        return [known.get(piece, UNK) for piece in pieces]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the piece of each number."""
        return [self._pieces[id] for id in ids]

    def __contains__(self, piece: str) -> bool:
        return piece in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def to_bytes(self) -> bytes:
        """Return the whole list as UTF-8 text, one piece a line."""
        return "".join(f"{piece}\n" for piece in self._pieces).encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Vocabulary:
        """Read what ``to_bytes`` wrote.

        Raises:
            Problem: the content is no such list; ``where`` names it.
        """
        try:
            pieces = content.decode().removesuffix("\n").split("\n")
            if tuple(pieces[: len(SPECIALS)]) != SPECIALS:
                raise ValueError(f"it does not begin with {' '.join(SPECIALS)}")
            return cls(pieces[len(SPECIALS) :])
        except ValueError as error:
            raise Problem(f"this is no vocabulary: {error}; restore the file", where) from error
