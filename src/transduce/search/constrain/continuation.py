"""Answers that go on with their source, as those of a language model do."""

from __future__ import annotations

from collections.abc import Mapping

from transduce.search.constrain.prefix import ForcedPrefix, PrefixState
from transduce.sequences import Sequences


class Continuation(ForcedPrefix):
    """Allows only outputs that begin with the symbols of their source, its end left out."""

    def begin(self, sources: Mapping[str, Sequences]) -> PrefixState:
        """Return the state before anything is read, one row for every source."""
        source = sources["source"]
        return super().begin({self.name: Sequences(source.data, source.lengths - 1)})
