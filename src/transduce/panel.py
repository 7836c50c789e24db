"""The models that are asked together: how they read a text, and how long an answer may get."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from transduce.bundle import Bundle, require_same_target
from transduce.problem import Problem
from transduce.search.constrain import (
    Apart,
    ConstraintBlueprint,
    Continuation,
    Own,
    Target,
    Texts,
    constrained,
)
from transduce.search.ensemble import Average, Ensemble
from transduce.search.fusion import fused
from transduce.search.interface import Batch, SearchBlueprint
from transduce.search.length import Length
from transduce.search.scorer import Scorer
from transduce.search.speculative import OWN, Aided
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS

TOKENS = 8192  # positions of source in a batch, at most


class Panel:
    """One model or several of one target vocabulary, each of which reads in its own way."""

    def __init__(
        self, bundles: Sequence[Bundle], device: torch.device, average: Average = "probabilities"
    ) -> None:
        self.bundles, self.device = tuple(bundles), device
        first, *beside = self.bundles
        for number, other in enumerate(beside, 2):
            require_same_target(first, other, f"model {number} of the ensemble")
        models = tuple(bundle.model.to(device).eval() for bundle in self.bundles)
        self.scorer: Scorer = Ensemble(models, average) if beside else first.model
        self.slots = first.blueprint.model.head.slots
        self.longest = first.blueprint.longest
        self.reads = first.blueprint.model.encoder.reads
        if any(other.blueprint.model.encoder.reads != self.reads for other in beside):
            raise Problem(
                "a language model is no member of an ensemble that reads; fuse it instead"
            )
        self.languages: tuple[Panel, ...] = ()  # language models that are fused with all of them
        self.drafter: Bundle | None = None  # a small model that nothing but drafts are asked of

    def fused(self, language: Panel, weight: float) -> Panel:
        """Return the panel with language models beside it.

        Raises:
            Problem: they are none, or of another target vocabulary.
        """
        if language.reads or not self.reads:
            raise Problem(
                "fusion takes a model that reads and a language model, which has no encoder; for "
                "models that read use an ensemble",
                "fusion.run",
            )
        require_same_target(self.bundles[0], language.bundles[0], "fusion.run")
        for bundle in language.bundles:
            bundle.model.to(self.device)
        made = copy(self)
        made.scorer = fused(self.scorer, language.scorer, weight)
        made.languages = (*self.languages, language)
        return made

    def aided(self, small: Panel) -> Panel:
        """Return the panel with a small model that drafts.

        Raises:
            Problem: it is several models, of another target vocabulary, or for shorter targets.
        """
        if len(small.bundles) > 1 or small.languages:
            raise Problem("several models together are not small; name one", "drafter")
        require_same_target(self.bundles[0], small.bundles[0], "drafter")
        most = small.bundles[0].model.longest["target"]
        if most is not None and most < min(self._positions(), default=most + 1):
            raise Problem(
                f"it has learned {most} positions, and the answers of the model may be longer; "
                "take one with as many, or with positions of another kind",
                "drafter",
            )
        made = copy(self)
        made.drafter = small.bundles[0]
        made.drafter.model.to(self.device)
        return made

    def aid(self, scorer: Scorer) -> Scorer:
        """Put the small model beside what a search asks."""
        assert self.drafter is not None
        return Aided(scorer, self.drafter.model)

    def admit(self, search: SearchBlueprint, constraints: Sequence[ConstraintBlueprint]) -> None:
        """Refuse what these models do not suit.

        Raises:
            Problem: the search takes symbols of the source for the answer, and they are others; it
                asks a small model, and there is none; or a beginning or constraints meet a
                text that is written from right to left.
        """
        if search.shares and not self.bundles[0].blueprint.joint:
            raise Problem(
                f"{search.kind} takes symbols of the source for the answer, and this model has a "
                "vocabulary for each side; search greedily",
                "search",
            )
        if search.aided and self.drafter is None:
            raise Problem(
                f"{search.kind} search has no small model to ask; name one: drafter=RUN", "search"
            )
        reverse = self.bundles[0].codecs["target"].blueprint.reverse
        if reverse and not self.reads:
            what = "it writes from right to left, and so goes on with no beginning; use score"
            raise Problem(what, "text.target.reverse")
        if not self.reads and any(one.begins for one in constraints):
            raise Problem(
                "a language model goes on with the text itself, and its answers begin with that; "
                "leave the prefix out, or write it into the text",
                "constraints",
            )
        if constraints:
            self._require_left_to_right("constraints")

    def _require_left_to_right(self, where: str) -> None:
        if self.bundles[0].codecs["target"].blueprint.reverse:
            raise Problem(
                "it is for texts from left to right, and this model writes from right to left; "
                "leave it out, or let the model rerank the answers of one that obeys",
                where,
            )

    def within(
        self, search: SearchBlueprint, constraints: Sequence[ConstraintBlueprint], length: Length
    ) -> Scorer:
        """Return what a search asks, but for a small model: all others, and what answers obey.

        Raises:
            Problem: they do not go together.
        """
        self.admit(search, constraints)
        target = self.target(length)
        built = [constraint.build(target) for constraint in constraints]
        own = [] if self.reads else [Continuation()]
        return constrained(length.over(self.scorer), [*own, *built])

    def apart(self, own: Sequence[Own | None], length: Length, first: int) -> Apart:
        """Return what each of some texts has to obey; ``first`` is the number of the first one.

        Raises:
            Problem: one has words that cannot be written or a beginning besides that which a
                language model goes on with, or the model writes from right to left.
        """
        self._require_left_to_right("own")
        if not self.reads and any(one.prefix for one in own if one is not None):
            raise Problem(
                "a language model goes on with the text itself; leave it out", "own.prefix"
            )
        return Apart(own, self.target(length), first)

    def target(self, length: Length) -> Target:
        """Return what constraints have to know of the side that is written."""
        codec = self.bundles[0].codecs["target"]
        return Target(
            codec.encode,
            lambda: Texts(codec.texts(), codec.tokeniser.spaced),
            partial(self.limit, length=length),
            self.device,
        )

    def evaluate(self) -> None:
        """Put the models to prediction: no dropout."""
        for bundle in self.bundles:
            bundle.model.eval()

    def read(self, side: str, place: str, text: str, source: str) -> list[list[int]]:
        """Encode a text of that source, which nothing ever shortens, for each model.

        Raises:
            Problem: it is longer than there are positions learned.
        """
        found = []
        for bundle in self._readers() if side == "source" else self.bundles:
            codec = bundle.codecs[side].reading(source, self.slots)
            ids, most = [*codec.encode(text), EOS], bundle.model.longest[side]
            if side == "target":  # all models read it, language models as well
                most = min(self._positions(), default=None)
            if most is not None and len(ids) > most:
                raise Problem(
                    f"the {side} has {len(ids)} symbols with its end, and this model has learned "
                    f"{most} positions; shorten it or split it up",
                    place,
                )
            found.append(ids)
        return found

    def fits(self, source: str, most: int | None = None) -> bool:
        """Whether every model can read a source, which has ``most`` symbols at most."""
        for bundle in self._readers():
            limits = [x for x in (bundle.model.longest["source"], most) if x is not None]
            if limits and len(bundle.codecs["source"].encode(source)) >= min(limits):
                return False
        return True

    def _readers(self) -> list[Bundle]:
        """Return the models that read sources: all but the language models."""
        return [*self.bundles, *([] if self.drafter is None else [self.drafter])]

    def stack(self, read: Iterable[list[list[int]]]) -> dict[str, Sequences]:
        """Return the sources of a batch as the scorer wants them, for each model its own."""
        own = [list(map(torch.tensor, ids)) for ids in zip(*read, strict=True)]
        names = ["source", *(f"{number}:source" for number in range(2, len(self.bundles) + 1))]
        names += [f"{OWN}source"] * (self.drafter is not None)
        stacked = (Sequences.stack(ids).to(self.device) for ids in own)
        return dict(zip(names, stacked, strict=True))

    def batch(
        self, scorer: Scorer, sources: dict[str, Sequences], keys: Int[Tensor, "B"], length: Length
    ) -> Batch:
        """Let the scorer read sources; their answers are to be as long as ``length`` allows."""
        lengths = sources["source"].lengths
        begin = torch.full((len(lengths), 1), BOS, device=self.device)
        return Batch(
            scorer.encode(sources), begin, self.limit(lengths, length), keys.to(self.device)
        )

    def limit(self, lengths: Int[Tensor, "B"], length: Length) -> Int[Tensor, "B"]:
        """Return the most tokens that sources of these lengths may be answered with.

        Raises:
            Problem: there are fewer positions learned than an answer has at least.
        """
        factor, extra = self.longest
        most = length.limit(lengths, (lengths * factor).ceil().long() + extra)
        learned = self._positions()
        if not learned:
            return most
        if (fewest := int(length.fewest(lengths).max())) > min(learned):
            raise Problem(
                f"an answer has {fewest} symbols at least, and this model has learned "
                f"{min(learned)} positions; lower it",
                "length.least",
            )
        return most.clamp(max=min(learned))

    def _positions(self) -> list[int]:
        """Return how many target positions each model has that has learned so many."""
        panels = (self, *self.languages)
        counts = [one.model.longest["target"] for panel in panels for one in panel.bundles]
        return [count for count in counts if count is not None]


def key(text: str) -> int:
    """Return what the samples for a text depend on: the same for the same text, wherever asked."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
