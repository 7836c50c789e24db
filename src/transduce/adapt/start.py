"""What is taken over from a trained model, parameter by parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn

from transduce.adapt.vocabulary import Rows, fill_rows
from transduce.blueprint import Blueprint
from transduce.models.heads import LinearHead
from transduce.models.pieces import Piece, belongs, parameters
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem

Side = Literal["source", "target"]
SIDES: Final[dict[Piece, Side]] = {
    "encoder": "source",
    "decoder": "target",
    "head": "target",
    "source_table": "source",
    "target_table": "target",
}


class StartBlueprint(Blueprint):
    """A trained model to begin from; what is left out of ``model`` and ``text`` is then its own."""

    run: str
    """folder of a run or of a model, seen from the folder that the paths of the data start from"""
    take: tuple[Piece, ...] = Field(("encoder", "decoder", "head"), min_length=1)
    """what is taken over; a table is all the token vectors of a side"""
    vocabulary: Literal["keep", "extend", "replace"] = "keep"
    """of each side of which anything is taken: keep it; keep it and add what is new in the training
    data; or learn another, whose vectors begin as those of the same symbols"""

    @property
    def sides(self) -> frozenset[Side]:
        """The sides of which anything is taken; the other's vocabulary is learned."""
        return frozenset(SIDES[piece] for piece in self.take)


class Taken(NamedTuple):
    """The names of parameters that were taken, that are new, and that were left behind."""

    taken: list[str]
    new: list[str]
    left: list[str]


def take(model: Seq2Seq, base: Seq2Seq, start: StartBlueprint, rows: Mapping[Side, Rows]) -> Taken:
    """Copy what ``start`` names from ``base`` into ``model``; vectors of symbols by ``rows``.

    Raises:
        Problem: a parameter has another shape there, or something named is in one of them alone.
    """
    named = base.named_parameters(remove_duplicate=False)
    theirs = {name: value for name, value in named if value.numel()}  # what reads no source is none
    tables = {id(table) for table in _tables(model)}
    met = set[Piece]()
    found = Taken([], [], [])
    for names, parameter in parameters(model):
        there = [name for name in names if name in theirs]
        known = [(piece, name) for name in there for piece in start.take if belongs(name, piece)]
        met.update(piece for piece, _ in known)
        if known:
            piece, name = known[0]
            by_symbol = rows[SIDES[piece]] if id(parameter) in tables else None
            _copy(parameter, theirs[name], by_symbol, name, piece)
        (found.taken if known else found.new).append(names[0])
    every = {name for part in (model, base) for name, _ in part.named_parameters()}
    wanted = {piece for piece in start.take if any(belongs(name, piece) for name in every)}
    if missing := sorted(wanted - met):  # a language model has no encoder, and need not say so
        raise Problem(
            f"the base and this model have no {missing[0]} in common; leave it out, or leave model "
            "out to have the base's",
            "start.take",
        )
    ours = {name for names, _ in parameters(model) for name in names}
    found.left.extend(names[0] for names, _ in parameters(base) if ours.isdisjoint(names))
    return found


@torch.no_grad()
def _copy(
    parameter: nn.Parameter, there: nn.Parameter, rows: Rows | None, name: str, piece: Piece
) -> None:
    """Copy values; ``rows`` are those of a table, whose symbols may have other numbers here."""
    first = 0 if rows is None else 1
    if there.shape[first:] != parameter.shape[first:]:
        raise Problem(
            f"{name} has shape {tuple(there.shape)} in the base and {tuple(parameter.shape)} here; "
            f"leave model out to have the base's, or leave {piece} out of start.take",
            "start.take",
        )
    if rows is None:
        parameter.copy_(there)
    else:
        fill_rows(parameter, there, rows)


def _tables(model: Seq2Seq) -> Iterator[nn.Parameter]:
    """Yield the parameters with a row for each symbol."""
    named = dict(model.named_parameters(remove_duplicate=False))
    for name in ("encoders.source.embedding.weight", "decoder.embedding.weight"):
        if name in named:  # a language model has one
            yield named[name]
    for part in model.head.modules():
        if isinstance(part, LinearHead):
            yield part.bias
            yield part.get_parameter("weight")
