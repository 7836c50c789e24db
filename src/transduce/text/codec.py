"""From text to numbers and back: normaliser, tokeniser and vocabulary as one thing that is kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby, islice, takewhile
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, model_validator

from transduce.blueprint import Blueprint, read
from transduce.problem import Problem
from transduce.text.normalise import NormaliserBlueprint
from transduce.text.tokenise import SentencePieceBlueprint, Tokeniser, TokeniserBlueprint
from transduce.text.vocabulary import BOS, BYTES, EOS, SPECIALS, UNK
from transduce.text.words import behind

T = TypeVar("T")

UNKNOWN = "⁇"  # how a symbol that stands for no text is shown


def _is_free(name: str) -> str:
    if name in (*SPECIALS, *BYTES):
        raise ValueError(f"{name} is in every vocabulary or means a byte; choose another name")
    return name


Reserved = Annotated[str, Field(pattern=r"^<[^\s<>]+>$"), AfterValidator(_is_free)]
"""A symbol that stands for no piece of text, such as ``<mask>`` or ``<2de>``."""


class CodecBlueprint(Blueprint):
    """How the texts of one side become numbers."""

    normalise: NormaliserBlueprint = NormaliserBlueprint()
    """how texts are made alike"""
    tokens: TokeniserBlueprint = SentencePieceBlueprint()
    """how texts are cut into pieces"""
    reverse: bool = False
    """number the pieces from the last to the first: a model then writes from right to left"""


class TextBlueprint(Blueprint):
    """How the texts of both sides become numbers."""

    of: str | None = None
    """folder of a run whose vocabularies are taken, none is learned; for models that are to answer
    together"""
    source: CodecBlueprint = CodecBlueprint()
    """the side that is read"""
    target: CodecBlueprint | None = None
    """the side that is written; null takes the settings of the source"""
    joint: bool = False
    """learn one vocabulary from both sides, for models that tie their embeddings"""
    reserved: tuple[Reserved, ...] = ()
    """symbols to keep for later, such as <2de>, read where they stand as words of the source (of
    both sides where they are joint); what the corpora need is there without"""

    @model_validator(mode="after")
    def _has_one_meaning(self) -> TextBlueprint:
        if self.joint and self.target is not None:
            raise ValueError("a joint vocabulary has the source's settings; leave target out")
        return self

    @model_validator(mode="after")
    def _is_learned_or_taken(self) -> TextBlueprint:
        own = self.source != CodecBlueprint() or self.target is not None or self.reserved
        if self.of is not None and own:
            raise ValueError("of: a vocabulary that is taken has its settings; leave yours out")
        return self


@dataclass(frozen=True)
class TextCodec:
    """A two-way street between text and numbers; all that was learned about one side."""

    blueprint: CodecBlueprint
    tokeniser: Tokeniser
    reserved: tuple[str, ...] = ()  # symbols that are numbered behind those of the tokeniser
    new: tuple[str, ...] = ()  # pieces of one source alone, numbered behind all of these

    @classmethod
    def learn(
        cls, blueprint: CodecBlueprint, lines: Iterable[str], reserved: Sequence[str] = ()
    ) -> TextCodec:
        """Make a codec from lines of text.

        Raises:
            Problem: the text or the settings leave nothing to learn.
        """
        cut = _Cut(tuple(dict.fromkeys(reserved)))
        texts = (part for line in lines for part in cut(line) if part not in cut.reserved)
        return cls(blueprint, blueprint.tokens.learn(map(blueprint.normalise, texts)), cut.reserved)

    @property
    def size(self) -> int:
        """The number of symbols in the vocabulary."""
        return len(self.tokeniser.vocabulary) + len(self.reserved)

    @property
    def variants(self) -> int:
        """How many alternatives of each training text are worth storing."""
        return self.blueprint.tokens.variants

    def reading(self, source: str, most: int) -> TextCodec:
        """Return the codec that also knows what is new in a source, in order of appearance.

        Of different pieces that the vocabulary does not hold the first ``most`` are known; the
        others stay unknown.
        """
        if most == 0:
            return self
        texts = (part for part in self._cut(source) if part not in self._numbers)
        pieces = chain.from_iterable(map(self._pieces, texts))
        new = dict.fromkeys(piece for piece in pieces if piece not in self.tokeniser.vocabulary)
        return replace(self, new=tuple(islice(new, most)))

    def encode(self, text: str) -> list[int]:
        """Return the symbols of a text, without BOS and EOS; a reserved one where it is a word."""
        ids: list[int] = []
        for part in self._cut(text):
            if part in self._numbers:
                ids.append(self._numbers[part])
            else:
                ids += self._ids(self._pieces(part))
        return self._ordered(ids)

    def opening(self, text: str) -> str:
        """Return the reserved symbols that a text begins with, such as tags, and a space behind."""
        words = takewhile(self._numbers.__contains__, text.split())
        return "".join(f"{word} " for word in words)

    def alternatives(self, text: str, count: int, seed: int) -> list[list[int]]:
        """Return ``count`` encodings: that of ``encode``, then others drawn at random.

        The draws are a function of the text and the seed (subword regularisation, Kudo 2018).
        """
        ways: list[list[int]] = [[] for _ in range(count)]
        for part in self._cut(text):
            if part in self._numbers:
                found = [[self._numbers[part]]] * count
            else:
                cut = self.tokeniser.alternatives(self.blueprint.normalise(part), count, seed)
                found = [self._ids(pieces) for pieces in cut]
            ways = [way + ids for way, ids in zip(ways, found, strict=True)]
        return [self._ordered(way) for way in ways]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of symbols; BOS and EOS are no text, an unknown symbol shows as ⁇."""
        kept = self._ordered([id for id in ids if id not in (BOS, EOS)])
        parts: list[str] = []
        for reserved, run in groupby(kept, self._is_reserved):
            found = list(run)
            parts += self.pieces(found) if reserved else [self._text(found)]
        return " ".join(parts)

    def unfold(self, parts: Iterable[list[int]]) -> Generator[str, None, list[int]]:
        """Yield the text of symbols that come part by part; return all of these.

        A character is shown when all its bytes have come.
        """
        ids, shown = list[int](), 0
        for part in parts:
            ids += part
            # Bytes that are no character yet show as U+FFFD; nothing before them will change.
            certain = self.decode(ids).rstrip("\ufffd")
            if len(certain) > shown:
                yield certain[shown:]
                shown = len(certain)
        if rest := self.decode(ids)[shown:]:
            yield rest
        return ids

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the piece behind each symbol, to look at."""
        own = len(self.tokeniser.vocabulary)
        known = self.tokeniser.vocabulary.pieces([id if id < own else UNK for id in ids])
        behind = (*self.reserved, *self.new)
        return [
            piece if id < own else behind[id - own] for id, piece in zip(ids, known, strict=True)
        ]

    def words(self, ids: Sequence[int]) -> list[int]:
        """Return the number of the word of each symbol, from 1; 0 for one of white space alone.

        Words are what white space separates in the text, and reserved symbols.
        """
        runs = groupby(self._ordered(list(ids)), self._is_reserved)
        parts = ((reserved, self.pieces(list(run))) for reserved, run in runs)
        cut = self.tokeniser.words
        return self._ordered(
            behind(range(1, len(part) + 1) if reserved else cut(part) for reserved, part in parts)
        )

    def texts(self) -> list[str | bytes | None]:
        """Return what each symbol adds to a text; None for one that stands for no text."""
        return [*self.tokeniser.texts(), *(None for _ in self.reserved)]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        own = len(self.tokeniser.vocabulary)
        return {name: own + place for place, name in enumerate(self.reserved)}

    @cached_property
    def _cut(self) -> _Cut:
        return _Cut(self.reserved)

    def _is_reserved(self, id: int) -> bool:
        return len(self.tokeniser.vocabulary) <= id < self.size

    def _pieces(self, text: str) -> list[str]:
        return self.tokeniser.pieces(self.blueprint.normalise(text))

    def _text(self, ids: Sequence[int]) -> str:
        pieces = zip(ids, self.pieces(ids), strict=True)
        return self.tokeniser.text([UNKNOWN if id == UNK else piece for id, piece in pieces])

    def _ordered(self, found: list[T]) -> list[T]:
        """Turn pieces around if they are numbered from the last to the first, and back."""
        return found[::-1] if self.blueprint.reverse else found

    def _ids(self, pieces: list[str]) -> list[int]:
        ids = self.tokeniser.vocabulary.ids(pieces)
        if not self.new:
            return ids
        new = {piece: self.size + number for number, piece in enumerate(self.new)}
        return [new.get(piece, id) for id, piece in zip(ids, pieces, strict=True)]

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of all that ``save`` writes: equal codecs have equal fingerprints."""
        hashes = [hashlib.sha256(content).hexdigest() for _, content in self._files()]
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    def save(self, folder: Path, name: str) -> list[Path]:
        """Write the codec as ``name.json`` and ``name.vocabulary`` or ``name.model``.

        Reserved symbols are listed in ``name.reserved``, where there are any.
        """
        paths = [(folder / f"{name}.{suffix}", content) for suffix, content in self._files()]
        for path, content in paths:
            path.write_bytes(content)
        return [path for path, _ in paths]

    @classmethod
    def load(cls, folder: Path, name: str) -> TextCodec:
        """Read what ``save`` wrote.

        Raises:
            Problem: a file is missing or damaged.
        """
        blueprint = read(folder / f"{name}.json", CodecBlueprint)  # JSON is YAML
        path = folder / f"{name}.{blueprint.tokens.suffix}"
        try:
            learned = path.read_bytes()
        except OSError as error:
            raise Problem(f"cannot be read: {error.strerror}", str(path)) from None
        listed = folder / f"{name}.reserved"
        reserved = listed.read_text("utf-8").split("\n")[:-1] if listed.exists() else ()
        return cls(blueprint, blueprint.tokens.load(learned, str(path)), tuple(reserved))

    def _files(self) -> list[tuple[str, bytes]]:
        # What is not set is left out, so that codecs have the fingerprints that they always had.
        plain = set() if self.blueprint.reverse else {"reverse"}
        settings = self.blueprint.model_dump_json(indent=2, exclude=plain) + "\n"
        learned = self.tokeniser.to_bytes()
        files = [("json", settings.encode()), (self.blueprint.tokens.suffix, learned)]
        if self.reserved:
            files.append(("reserved", "".join(f"{name}\n" for name in self.reserved).encode()))
        return files


class _Cut:
    """Cuts a text at the reserved symbols that are words of it; these are parts as well."""

    def __init__(self, reserved: tuple[str, ...]) -> None:
        self.reserved = reserved
        names = "|".join(map(re.escape, reserved))
        self._pattern = re.compile(rf" ?(?<!\S)({names})(?!\S) ?") if reserved else None

    def __call__(self, text: str) -> list[str]:
        if self._pattern is None:
            return [text]
        return [part for part in self._pattern.split(text) if part]


def learn_codecs(
    blueprint: TextBlueprint,
    sources: Iterable[str],
    targets: Iterable[str],
    reserved: Sequence[str] = (),
) -> dict[str, TextCodec]:
    """Return the codecs "source" and "target", one and the same where they are joint.

    ``reserved`` are symbols that the source has beside those that the blueprint names.

    Raises:
        Problem: the text or the settings leave nothing to learn.
    """
    reserved = (*blueprint.reserved, *reserved)
    if blueprint.joint:
        joint = TextCodec.learn(blueprint.source, chain(sources, targets), reserved)
        return {"source": joint, "target": joint}
    return {
        "source": TextCodec.learn(blueprint.source, sources, reserved),
        "target": TextCodec.learn(blueprint.target or blueprint.source, targets),
    }
