"""Outputs that are among given ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from transduce.search.constrain.automaton import Automaton, only
from transduce.search.constrain.constraint import ConstraintBlueprint, Target
from transduce.search.constrain.phrases import written


class AllowedBlueprint(ConstraintBlueprint):
    """The output is one of these texts (De Cao et al. 2021)."""

    kind: Literal["allowed"] = "allowed"
    texts: tuple[str, ...] = Field(min_length=1)
    """all that may be written"""

    def build(self, target: Target) -> Automaton:
        """Make the constraint."""
        return only([written(text, target) for text in self.texts], target.device)
