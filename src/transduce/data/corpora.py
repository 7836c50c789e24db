"""From the blueprint of a corpus, of whatever kind, to its rows."""

from __future__ import annotations

from pathlib import Path

from transduce.data.denoise import DenoiseBlueprint, Denoising
from transduce.data.jsonl import JsonlBlueprint
from transduce.data.mixture import Mixed, MixtureBlueprint
from transduce.data.read import CorpusBlueprint
from transduce.data.rows import Rows
from transduce.data.store import Encoding, prepare
from transduce.data.tables import CsvBlueprint, TsvBlueprint

__all__ = ["CorpusBlueprint", "CsvBlueprint", "JsonlBlueprint", "TsvBlueprint", "open_rows"]


def open_rows(corpus: CorpusBlueprint, base: Path, encoding: Encoding, cache: Path) -> Rows:
    """Open the rows of a corpus whose encoding is kept in ``cache``; encode what is not there.

    Raises:
        Problem: the corpus cannot be read or encoded, or what is kept of it is damaged.
    """
    if isinstance(corpus, MixtureBlueprint):
        parts = [open_rows(part, base, encoding, cache) for part in corpus.of]
        return Mixed(parts, corpus.temperature, corpus.epoch, corpus.follow)
    store = prepare(corpus, base, encoding, cache)
    if not isinstance(corpus, DenoiseBlueprint):
        return store
    return Denoising(store, corpus, encoding.codecs["source"])
