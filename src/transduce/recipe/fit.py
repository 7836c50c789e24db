"""Whether a model has positions for all that it will be given."""

from __future__ import annotations

from collections.abc import Mapping

from transduce.data.store import TARGET
from transduce.problem import Problem
from transduce.recipe.prepare import Prepared

SETTING = {True: "model.decoder.positions.longest", False: "model.encoder.positions.longest"}


def check_lengths(longest: Mapping[str, int | None], prepared: Prepared) -> None:
    """Refuse data that the model could not read, before it is trained.

    Raises:
        Problem: a text is longer than its side's ``longest``; the message names the first.
    """
    for side, most in longest.items():
        if most is None:
            continue
        for store in (prepared.train, prepared.dev_store):
            if fault := store.beyond(side, most):
                raise _problem(fault.place, fault.what, side, most)
        for example in prepared.test if side != TARGET else ():
            count = len(prepared.codecs[side].encode(example.sources[side])) + 1
            if count > most:
                what = f"the {side} has {count} symbols with its end, more than {most}"
                raise _problem(example.place, what, side, most)


def _problem(place: str, what: str, side: str, most: int) -> Problem:
    return Problem(
        f"{what} positions; raise {SETTING[side == TARGET]}, or set data.limits.{side}: "
        f"{most - 1} and on_bad_line: skip",
        place,
    )
