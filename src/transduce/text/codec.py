"""From text to numbers and back: normaliser, tokeniser and vocabulary as one thing that is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from pydantic import model_validator

from transduce.blueprint import Blueprint, read
from transduce.problem import Problem
from transduce.text.normalise import NormaliserBlueprint
from transduce.text.tokenise import SentencePieceBlueprint, Tokeniser, TokeniserBlueprint
from transduce.text.vocabulary import BOS, EOS, UNK

T = TypeVar("T")

UNKNOWN = "⁇"  # how a symbol that stands for no text is shown


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

    @model_validator(mode="after")
    def _has_one_meaning(self) -> TextBlueprint:
        if self.joint and self.target is not None:
            raise ValueError("a joint vocabulary has the source's settings; leave target out")
        return self

    @model_validator(mode="after")
    def _is_learned_or_taken(self) -> TextBlueprint:
        if self.of is not None and (self.source != CodecBlueprint() or self.target is not None):
            raise ValueError("of: a vocabulary that is taken has its settings; leave yours out")
        return self


@dataclass(frozen=True)
class TextCodec:
    """A two-way street between text and numbers; all that was learned about one side."""

    blueprint: CodecBlueprint
    tokeniser: Tokeniser
    new: tuple[str, ...] = ()  # pieces of one source alone, numbered behind the vocabulary

    @classmethod
    def learn(cls, blueprint: CodecBlueprint, lines: Iterable[str]) -> TextCodec:
        """Make a codec from lines of text.

        Raises:
            Problem: the text or the settings leave nothing to learn.
        """
        return cls(blueprint, blueprint.tokens.learn(map(blueprint.normalise, lines)))

    @property
    def size(self) -> int:
        """The number of symbols in the vocabulary."""
        return len(self.tokeniser.vocabulary)

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
        pieces = self.tokeniser.pieces(self.blueprint.normalise(source))
        new = dict.fromkeys(piece for piece in pieces if piece not in self.tokeniser.vocabulary)
        return replace(self, new=tuple(islice(new, most)))

    def encode(self, text: str) -> list[int]:
        """Return the symbols of a text, without BOS and EOS."""
        return self._ids(self._ordered(self.tokeniser.pieces(self.blueprint.normalise(text))))

    def alternatives(self, text: str, count: int, seed: int) -> list[list[int]]:
        """Return ``count`` encodings: that of ``encode``, then others drawn at random.

        The draws are a function of the text and the seed (subword regularisation, Kudo 2018).
        """
        ways = self.tokeniser.alternatives(self.blueprint.normalise(text), count, seed)
        return [self._ids(self._ordered(pieces)) for pieces in ways]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of symbols; BOS and EOS are no text, an unknown symbol shows as ⁇."""
        kept = self._ordered([id for id in ids if id not in (BOS, EOS)])
        pieces = self.pieces(kept)
        shown = [UNKNOWN if id == UNK else piece for id, piece in zip(kept, pieces, strict=True)]
        return self.tokeniser.text(shown)

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
        known = self.tokeniser.vocabulary.pieces([id if id < self.size else UNK for id in ids])
        return [
            piece if id < self.size else self.new[id - self.size]
            for id, piece in zip(ids, known, strict=True)
        ]

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
        """Write the codec as ``name.json`` and ``name.vocabulary`` or ``name.model``."""
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
        return cls(blueprint, blueprint.tokens.load(learned, str(path)))

    def _files(self) -> list[tuple[str, bytes]]:
        # What is not set is left out, so that codecs have the fingerprints that they always had.
        plain = set() if self.blueprint.reverse else {"reverse"}
        settings = self.blueprint.model_dump_json(indent=2, exclude=plain) + "\n"
        learned = self.tokeniser.to_bytes()
        return [("json", settings.encode()), (self.blueprint.tokens.suffix, learned)]


def learn_codecs(
    blueprint: TextBlueprint, sources: Iterable[str], targets: Iterable[str]
) -> dict[str, TextCodec]:
    """Return the codecs "source" and "target", one and the same where they are joint.

    Raises:
        Problem: the text or the settings leave nothing to learn.
    """
    if blueprint.joint:
        joint = TextCodec.learn(blueprint.source, chain(sources, targets))
        return {"source": joint, "target": joint}
    return {
        "source": TextCodec.learn(blueprint.source, sources),
        "target": TextCodec.learn(blueprint.target or blueprint.source, targets),
    }
