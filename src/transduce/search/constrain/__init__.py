"""Constraints: scorers around scorers that say what may follow."""

from __future__ import annotations

from transduce.search.constrain.allowed import AllowedBlueprint
from transduce.search.constrain.automaton import only
from transduce.search.constrain.constraint import (
    Constrained,
    Constraint,
    ConstraintBlueprint,
    Target,
    Texts,
    constrained,
)
from transduce.search.constrain.context_free import Grammar
from transduce.search.constrain.continuation import Continuation
from transduce.search.constrain.expression import Nfa
from transduce.search.constrain.grammar import GrammarBlueprint
from transduce.search.constrain.language import Language, holds
from transduce.search.constrain.match import MatchBlueprint, Matching
from transduce.search.constrain.own import Apart, Own, read_own
from transduce.search.constrain.phrases import ForbiddenBlueprint, forbid
from transduce.search.constrain.prefix import ForcedPrefix, PrefixBlueprint, opening
from transduce.search.constrain.repeat import (
    NoRepeat,
    NoRepeatBlueprint,
    RepetitionPenalty,
    RepetitionPenaltyBlueprint,
)
from transduce.search.constrain.required import Required, RequiredBlueprint

__all__ = [
    "AllowedBlueprint",
    "Apart",
    "Constrained",
    "Constraint",
    "ConstraintBlueprint",
    "Continuation",
    "ForbiddenBlueprint",
    "ForcedPrefix",
    "Grammar",
    "GrammarBlueprint",
    "Language",
    "MatchBlueprint",
    "Matching",
    "Nfa",
    "NoRepeat",
    "NoRepeatBlueprint",
    "Own",
    "PrefixBlueprint",
    "RepetitionPenalty",
    "RepetitionPenaltyBlueprint",
    "Required",
    "RequiredBlueprint",
    "Target",
    "Texts",
    "constrained",
    "forbid",
    "holds",
    "only",
    "opening",
    "read_own",
]
