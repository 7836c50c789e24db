"""Vocabularies that grow out of others, and the vectors that their symbols begin with."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transduce.problem import Problem
from transduce.text.codec import TextCodec
from transduce.text.tokenise import CountedBlueprint, Tokeniser
from transduce.text.vocabulary import SPECIALS, UNK, Vocabulary


class Rows(NamedTuple):
    """For each symbol of a vocabulary the symbols of another whose mean it begins as."""

    sources: list[list[int]]

    def __str__(self) -> str:
        same = sum(len(ids) == 1 for ids in self.sources)
        none = sum(not ids for ids in self.sources)
        means = len(self.sources) - same - none
        said = f"{same:,} vectors taken"
        said += f", {means:,} begun as the mean of pieces" if means else ""
        return said + (f", {none:,} drawn" if none else "")


def extend(codec: TextCodec, other: TextCodec, side: str) -> TextCodec:
    """Return a codec that also knows what ``other`` knows, numbered behind its own.

    Raises:
        Problem: its tokeniser does not look pieces up in a list.
    """
    tokens = codec.blueprint.tokens
    if not isinstance(tokens, CountedBlueprint):
        raise Problem(
            f"the {side} is cut into {tokens.kind}, to which no symbols can be added; keep the "
            "vocabulary (what it does not hold is spelt or unknown) or replace it",
            "start.vocabulary",
        )
    both = [*codec.tokeniser.vocabulary, *other.tokeniser.vocabulary]
    whole = Vocabulary(dict.fromkeys(piece for piece in both if piece not in SPECIALS))
    if tokens.size is not None:
        tokens = tokens.model_copy(update={"size": max(tokens.size, len(whole))})
    blueprint = codec.blueprint.model_copy(update={"tokens": tokens})
    tokeniser = tokens.load(whole.to_bytes(), side)
    reserved = tuple(dict.fromkeys([*codec.reserved, *other.reserved]))
    return replace(codec, blueprint=blueprint, tokeniser=tokeniser, reserved=reserved)


def rows(new: TextCodec, old: TextCodec) -> Rows:
    """Return what the symbols of ``new`` begin as.

    The same symbol, or else the mean of those that ``old`` cuts its text into; nothing where these
    are unknown.
    """
    if new.fingerprint == old.fingerprint:
        return Rows([[id] for id in range(new.size)])
    alike = new.blueprint.tokens.kind == old.blueprint.tokens.kind  # a piece means the same there
    vocabulary = old.tokeniser.vocabulary
    found: list[list[int]] = [[id] for id in range(len(SPECIALS))]
    texts = new.tokeniser.texts()
    for piece, text in list(zip(new.tokeniser.vocabulary, texts, strict=True))[len(SPECIALS) :]:
        if piece in vocabulary and (alike or not isinstance(text, str)):
            found.append(vocabulary.ids([piece]))
        elif isinstance(text, str):
            found.append([id for id in vocabulary.ids(_cut(old.tokeniser, text)) if id != UNK])
        else:
            found.append([])
    kept = {name: len(vocabulary) + place for place, name in enumerate(old.reserved)}
    return Rows([*found, *([kept[name]] if name in kept else [] for name in new.reserved)])


def _cut(tokeniser: Tokeniser, text: str) -> list[str]:
    """Cut a piece of text that need not begin a word."""
    pieces = tokeniser.pieces(text.strip() or text)
    inside = not text.startswith(" ")  # SentencePiece begins a word all the same
    return pieces[1:] if inside and len(pieces) > 1 and pieces[0] == "▁" else pieces


def fill_rows(new: Float[Tensor, "V ..."], old: Float[Tensor, "U ..."], origins: Rows) -> None:
    """Put the mean of rows of ``old`` into each row of ``new`` that has any."""
    for row, ids in enumerate(origins.sources):
        if ids:
            new[row] = old[torch.tensor(ids, device=old.device)].mean(0)
