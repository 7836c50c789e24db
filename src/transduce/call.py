"""One call of the models: texts are read, searched side by side, and what was found is told."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from transduce.data.stream import by_length
from transduce.explain.reading import looks
from transduce.panel import TOKENS, Panel, key
from transduce.problem import Problem
from transduce.result import Result, results_of
from transduce.search.constrain import ConstraintBlueprint, Own, constrained
from transduce.search.hypotheses import Hypotheses
from transduce.search.interface import Batch, SearchBlueprint
from transduce.search.length import Length
from transduce.search.scorer import Scorer
from transduce.search.stepwise import StepwiseSearch, answers
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS

REFILL = 4  # batches side by side, if a source has one row; where it has many, rows never get few

Maps = tuple[Float[Tensor, "B T S"] | None, Float[Tensor, "B T S"] | None]


class Call:
    """How texts are answered: by which models and search, and within what limits."""

    def __init__(
        self,
        panel: Panel,
        search: SearchBlueprint,
        constraints: Sequence[ConstraintBlueprint],
        length: Length,
        rows: int,
    ) -> None:
        """Take what all answers have in common; ``rows`` sources are searched side by side.

        Raises:
            Problem: it does not go together, or a constraint cannot be written.
        """
        self.panel, self.search, self.length, self.rows = panel, search, length, rows
        self.scorer = panel.within(search, constraints, length)
        codecs = panel.bundles[0].codecs
        self.source, self.target = codecs["source"], codecs["target"]

    @torch.no_grad()
    def answers(
        self,
        lines: Sequence[str],
        own: Sequence[Own | None] | None = None,
        *,
        first: int = 1,
        attention: bool = False,
    ) -> list[Result]:
        """Search batches of like length; a blank text has a blank answer.

        ``own`` is what each text has to obey besides; ``first`` is the number of the first text,
        for errors.

        Raises:
            Problem: a text is longer than there are positions learned, what one has to obey cannot
                be written, or attention is wanted of an ensemble.
        """
        if attention and len(self.panel.bundles) > 1:
            what = "each model of an ensemble looks elsewhere; ask one of them for attention"
            raise Problem(what)
        self.panel.evaluate()
        asked = [index for index, line in enumerate(lines) if line.strip()]
        read = {
            index: self.panel.read("source", f"text {first + index}", lines[index], lines[index])
            for index in asked
        }
        lengths = np.array([max(map(len, ids)) for ids in read.values()], dtype=np.int64)
        search = self.search
        beside = max(1, REFILL // search.rows) if isinstance(search, StepwiseSearch) else 1
        cut = by_length(lengths, TOKENS // beside, max(1, self.rows // beside))
        batches = [[asked[place] for place in batch] for batch in cut]
        sources = [self.panel.stack(read[index] for index in batch) for batch in batches]
        scorer = self.scorer
        if own is not None:
            apart = self.panel.apart(own, self.length, first)
            scorer = constrained(scorer, apart.constraints)
            both = zip(sources, batches, strict=True)
            sources = [shared | apart.sources(batch) for shared, batch in both]
        texts = [[lines[index] for index in batch] for batch in batches]
        results = [Result(line, "", 0.0, 0.0, True, ()) for line in lines]
        answered = self._found(scorer, sources, texts)
        for batch, given, found in zip(batches, sources, answered, strict=True):
            best = Sequences(found.tokens[:, 0], found.lengths[:, 0])
            model = self.panel.bundles[0].model
            maps = looks(model, given, best, BOS) if attention else (None, None)
            for place, index in enumerate(batch):
                results[index] = self._result(lines[index], read[index][0], found, place, maps)
        return results

    @torch.no_grad()
    def unfold(self, text: str) -> Generator[str, None, bool]:
        """Yield the answer to a text as it grows, and return whether it has finished.

        Raises:
            Problem: the search decides on whole answers, or the text is too long.
        """
        self.panel.evaluate()
        codec = self.target.reading(text, self.panel.slots)
        sources = self.panel.stack([self.panel.read("source", "text 1", text, text)])
        scorer = self._aided(self.scorer)
        said = yield from codec.unfold(
            self.search.unfold(scorer, *self._batch(scorer, sources, [text]))
        )
        return EOS in said

    def _aided(self, scorer: Scorer) -> Scorer:
        """Put a small model beside all that is asked, where the search wants one."""
        return self.panel.aid(scorer) if self.search.aided else scorer

    def _batch(self, scorer: Scorer, sources: dict[str, Sequences], texts: Sequence[str]) -> Batch:
        keys = torch.tensor([key(text) for text in texts])
        return self.panel.batch(scorer, sources, keys, self.length)

    def _found(
        self, scorer: Scorer, sources: list[dict[str, Sequences]], texts: list[list[str]]
    ) -> Iterator[Hypotheses]:
        """Search; where sources are answered, those of the next batch take their places."""
        scorer = self._aided(scorer)
        both = zip(sources, texts, strict=True)
        batches = (self._batch(scorer, given, own) for given, own in both)
        if isinstance(self.search, StepwiseSearch):
            return answers(self.search, scorer, batches, self.rows)
        return (self.search(scorer, *batch[:3]) for batch in batches)

    def _result(
        self, line: str, ids: list[int], found: Hypotheses, place: int, maps: Maps
    ) -> Result:
        """Return what was found for the source at one place of a batch."""
        pieces = self.source.reading(line, self.panel.slots).pieces(ids)
        target = self.target.reading(line, self.panel.slots)
        best, *others = results_of(line, target, found, place)
        real = place, slice(len(best.tokens)), slice(len(pieces))
        looked, copied = (None if x is None else x[real].cpu().numpy() for x in maps)
        return replace(
            best,
            alternatives=tuple(others),
            source_pieces=tuple(pieces),
            attention=looked,
            copying=copied,
        )
