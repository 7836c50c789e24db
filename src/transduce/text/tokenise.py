"""Text into pieces and back again: words, characters, bytes, SentencePiece."""

from __future__ import annotations

import io
import random
import re
import warnings
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import ClassVar, Literal, Self

import sentencepiece
from pydantic import Field, model_validator

from transduce.blueprint import Blueprint, Part
from transduce.problem import Problem
from transduce.text.vocabulary import BYTES, SPECIALS, Vocabulary
from transduce.text.words import behind, spaced

_VALUE = {piece: value for value, piece in enumerate(BYTES)}


def spell(text: str) -> list[str]:
    """Return the UTF-8 bytes of a text as pieces: ä is ``<0xC3> <0xA4>``."""
    return [BYTES[value] for value in text.encode()]


def read_spelling(pieces: Iterable[str]) -> list[str]:
    """Put the text in place of every run of bytes; bytes that are no UTF-8 show as U+FFFD."""
    texts: list[str] = []
    for spelt, run in groupby(pieces, _VALUE.__contains__):
        if spelt:
            texts.append(bytes(_VALUE[piece] for piece in run).decode(errors="replace"))
        else:
            texts.extend(run)
    return texts


class Tokeniser(ABC):
    """Cuts normalised text into pieces.

    A piece that the vocabulary does not hold stays as it stands in the text, so that
    ``text(pieces(x)) == x``.
    """

    vocabulary: Vocabulary
    spaced: ClassVar[bool] = False  # a space before the first piece is left out of the text

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """Cut a text."""

    @abstractmethod
    def text(self, pieces: Sequence[str]) -> str:
        """Put pieces together."""

    def alternatives(self, text: str, count: int, seed: int) -> list[list[str]]:
        """Return ``count`` ways to cut a text: the best one, then as many drawn at random.

        The draws are a function of the text and the seed. Where there is one way only, it is
        repeated.
        """
        return [self.pieces(text)] * count

    def words(self, pieces: Sequence[str]) -> list[int]:
        """Return the number of the word of each piece, from 1; 0 for one of white space alone."""
        return spaced(pieces)

    def texts(self) -> list[str | bytes | None]:
        """Return what each symbol adds to a text; None for one that stands for no text."""
        pieces = list(self.vocabulary)[len(SPECIALS) :]
        found = (bytes([_VALUE[p]]) if p in _VALUE else self._shown(p) for p in pieces)
        return [*[None] * len(SPECIALS), *found]

    def _shown(self, piece: str) -> str:
        return piece

    def to_bytes(self) -> bytes:
        """Return all that was learned, as its blueprint's ``load`` reads it."""
        return self.vocabulary.to_bytes()


class TokeniserBlueprint(Part):
    """Slot for a tokeniser."""

    suffix: ClassVar[str] = "vocabulary"  # of the file that holds what was learned

    @abstractmethod
    def learn(self, lines: Iterable[str]) -> Tokeniser:
        """Make a tokeniser from normalised lines of text.

        Raises:
            Problem: the text or the settings leave nothing to learn.
        """

    @abstractmethod
    def load(self, content: bytes, where: str) -> Tokeniser:
        """Make the tokeniser that ``to_bytes`` describes.

        Raises:
            Problem: the content is damaged; ``where`` names it.
        """

    @property
    def variants(self) -> int:
        """How many ways to cut each training text are worth storing."""
        return 1


class Words(Tokeniser):
    """What white space separates; put together with one space between."""

    spaced = True

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def pieces(self, text: str) -> list[str]:
        words = text.split()
        if not self.vocabulary.spells:
            return words
        pieces: list[str] = []
        for known, run in groupby(words, self._knows):
            if known:
                pieces.extend(run)
            else:
                pieces.extend(spell(" ".join(run)))
        return pieces

    def text(self, pieces: Sequence[str]) -> str:
        return " ".join(read_spelling(pieces) if self.vocabulary.spells else pieces)

    def words(self, pieces: Sequence[str]) -> list[int]:
        runs = ((spelt, list(run)) for spelt, run in groupby(pieces, _VALUE.__contains__))
        return behind(spaced(run) if spelt else range(1, len(run) + 1) for spelt, run in runs)

    def texts(self) -> list[str | bytes | None]:
        # A run of bytes is a word, and where it begins no single byte says.
        found = super().texts()
        return [None if isinstance(text, bytes) else text for text in found]

    def _shown(self, piece: str) -> str:
        return f" {piece}"

    def _knows(self, word: str) -> bool:
        return word in self.vocabulary and word not in _VALUE


def _characters(text: str) -> Iterator[str]:
    """Yield the characters; a line break, which no vocabulary can hold, as its byte."""
    return (BYTES[10] if character == "\n" else character for character in text)


class Characters(Tokeniser):
    """Unicode characters, spaces included."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def pieces(self, text: str) -> list[str]:
        if not self.vocabulary.spells:
            return list(_characters(text))
        known = self.vocabulary
        spelt = ([c] if c in known else spell(c) for c in _characters(text))
        return [piece for pieces in spelt for piece in pieces]

    def text(self, pieces: Sequence[str]) -> str:
        return "".join(read_spelling(pieces))


class Bytes(Tokeniser):
    """The bytes of UTF-8: nothing is unknown, nothing is learned."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary(BYTES)

    def pieces(self, text: str) -> list[str]:
        return spell(text)

    def text(self, pieces: Sequence[str]) -> str:
        return "".join(read_spelling(pieces))


class SentencePieces(Tokeniser):
    """Pieces of words, learned (Kudo and Richardson 2018).

    SentencePiece writes spaces as U+2581, and so reads that character as a space.
    """

    spaced = True

    def __init__(self, model: bytes, alpha: float | None) -> None:
        self._model, self._alpha = model, alpha
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)
        size = self._processor.GetPieceSize()
        pieces = [self._processor.IdToPiece(id) for id in range(size)]
        if tuple(pieces[: len(SPECIALS)]) != SPECIALS:
            raise ValueError(f"it does not begin with {' '.join(SPECIALS)}")
        self.vocabulary = Vocabulary(pieces[len(SPECIALS) :])

    def pieces(self, text: str) -> list[str]:
        return list(self._processor.EncodeAsPieces(text))

    def text(self, pieces: Sequence[str]) -> str:
        return str(self._processor.DecodePieces(list(pieces)))

    def words(self, pieces: Sequence[str]) -> list[int]:
        return list(accumulate(int(piece.startswith("▁")) for piece in pieces))

    def _shown(self, piece: str) -> str:
        return piece.replace("▁", " ")

    def alternatives(self, text: str, count: int, seed: int) -> list[list[str]]:
        if self._alpha is None:
            return super().alternatives(text, count, seed)
        sentencepiece.set_random_generator_seed(zlib.crc32(text.encode(), seed % 2**32))
        draws = [
            list(self._processor.SampleEncodeAsPieces(text, nbest_size=-1, alpha=self._alpha))
            for _ in range(count - 1)
        ]
        return [self.pieces(text), *draws]

    def to_bytes(self) -> bytes:
        return self._model


class CountedBlueprint(TokeniserBlueprint):
    """Units that are counted: the vocabulary holds the frequent ones."""

    min_count: int = Field(1, ge=1)
    """rarer ones stay out of the vocabulary"""
    size: int | None = Field(None, ge=len(SPECIALS) + 1)
    """the most symbols in all; the rarest stay out. null takes them all"""
    byte_fallback: bool = False
    """spell what the vocabulary does not hold in bytes, so that nothing is unknown"""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        least = len(SPECIALS) + len(BYTES) + 1
        if self.byte_fallback and self.size is not None and self.size < least:
            raise ValueError(
                f"size: {self.size} has no room beside all bytes; {least} is the least"
            )
        return self

    def _vocabulary(self, units: Iterable[str]) -> Vocabulary:
        counts = Counter(units)
        pieces = list(BYTES) if self.byte_fallback else []
        for reserved in (*SPECIALS, *pieces):
            del counts[reserved]
        if not counts:
            raise Problem("there is no text to learn a vocabulary from")
        found = sorted(counts, key=lambda unit: (-counts[unit], unit))
        pieces += [unit for unit in found if counts[unit] >= self.min_count]
        return Vocabulary(pieces if self.size is None else pieces[: self.size - len(SPECIALS)])


class WordsBlueprint(CountedBlueprint):
    """Words, as white space separates them."""

    kind: Literal["words"] = "words"

    def learn(self, lines: Iterable[str]) -> Words:
        return Words(self._vocabulary(word for line in lines for word in line.split()))

    def load(self, content: bytes, where: str) -> Words:
        return Words(Vocabulary.from_bytes(content, where))


class CharactersBlueprint(CountedBlueprint):
    """Unicode characters."""

    kind: Literal["characters"] = "characters"

    def learn(self, lines: Iterable[str]) -> Characters:
        return Characters(self._vocabulary(c for line in lines for c in _characters(line)))

    def load(self, content: bytes, where: str) -> Characters:
        return Characters(Vocabulary.from_bytes(content, where))


class BytesBlueprint(TokeniserBlueprint):
    """The bytes of UTF-8."""

    kind: Literal["bytes"] = "bytes"

    def learn(self, lines: Iterable[str]) -> Bytes:
        return Bytes()

    def load(self, content: bytes, where: str) -> Bytes:
        if content != Bytes().to_bytes():
            raise Problem("this is not the list of all bytes; restore the file", where)
        return Bytes()


class SamplingBlueprint(Blueprint):
    """Training texts cut in many ways (Kudo 2018; Provilkov et al. 2020 for bpe)."""

    variants: int = Field(8, ge=2)
    """how many ways of each text to store: the best one, and others drawn once for all"""
    alpha: float = Field(0.1, ge=0)
    """unigram: the nearer to 0, the wilder. bpe: the share of merges left out"""


class SentencePieceBlueprint(TokeniserBlueprint):
    """Pieces of words, learned from text (Kudo and Richardson 2018)."""

    suffix: ClassVar[str] = "model"

    kind: Literal["sentencepiece"] = "sentencepiece"
    model: Literal["unigram", "bpe"] = "unigram"
    """how pieces are found"""
    size: int = Field(8000, ge=len(SPECIALS) + 1)
    """symbols in all; fewer, with a warning, where the text has not that many"""
    byte_fallback: bool = True
    """spell unknown characters in bytes, so that nothing is unknown"""
    character_coverage: float = Field(0.9995, ge=0.9, le=1)
    """the share of the text whose characters become symbols"""
    sample: int = Field(1_000_000, ge=1)
    """learn from that many lines at most, drawn at random, always the same ones"""
    sampling: SamplingBlueprint | None = None
    """cut training texts in many ways; null always takes the best"""

    @property
    def variants(self) -> int:
        return self.sampling.variants if self.sampling else 1

    def learn(self, lines: Iterable[str]) -> SentencePieces:
        drawn = _draw((line.replace("\n", " ") for line in lines if line), self.sample)
        if not drawn:
            raise Problem("there is no text to learn a vocabulary from")
        made = self._load(self._train(drawn))
        if len(made.vocabulary) < self.size:
            found = len(made.vocabulary)
            warnings.warn(f"the text has {found} pieces, not the {self.size} wanted", stacklevel=2)
        return made

    def load(self, content: bytes, where: str) -> SentencePieces:
        try:
            return self._load(content)
        except (RuntimeError, ValueError) as error:
            raise Problem("this is no SentencePiece model; restore the file", where) from error

    def _load(self, model: bytes) -> SentencePieces:
        return SentencePieces(model, self.sampling.alpha if self.sampling else None)

    def _train(self, lines: list[str]) -> bytes:
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=self.model,
                vocab_size=self.size,
                hard_vocab_limit=False,  # rather fewer pieces than none
                byte_fallback=self.byte_fallback,
                character_coverage=self.character_coverage,
                normalization_rule_name="identity",  # texts come normalised
                remove_extra_whitespaces=False,
                max_sentence_length=2**30,  # the default leaves long lines out
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=-1,
                num_threads=1,  # the result depends on it
                minloglevel=2,
            )
        except RuntimeError as error:
            short = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
            advice = f"ask for {short[1]} at least or lower character_coverage" if short else error
            raise Problem(f"{self.size} pieces are too few for this text; {advice}") from error
        return model.getvalue()


def _draw(lines: Iterable[str], count: int) -> list[str]:
    """Return ``count`` lines, each as likely as any other (Vitter 1985, algorithm R)."""
    numbers = random.Random(0)
    kept: list[str] = []
    for seen, line in enumerate(lines):
        place = seen if seen < count else numbers.randrange(seen + 1)
        if place < count:
            kept[place : place + 1] = [line]
    return kept
