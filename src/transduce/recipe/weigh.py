"""Weights of training examples, learned from a few that are trusted (Moore & Lewis 2010)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from transduce import folder
from transduce.blueprint import Blueprint, override
from transduce.bundle import fingerprint, model_folder, require_same_target
from transduce.data.lines import Fault, Skipped
from transduce.data.mixture import MixtureBlueprint
from transduce.data.read import CorpusBlueprint
from transduce.data.weighting import RatioBlueprint, WeightingBlueprint
from transduce.problem import Problem
from transduce.recipe.init import corpus
from transduce.train.progress import Show
from transduce.transducer import Transducer

BLOCK: Final = 4096  # pairs that are looked at together; what is done is written down after each
DIFFERENCES, TABLE, STATE = "differences", "table.tsv", "state.json"
PATIENCE: Final = 60.0  # seconds between two words on how far it is


class WeighBlueprint(Blueprint):
    """What can be changed about weighing."""

    corpus: CorpusBlueprint
    """what is weighed"""
    weighting: WeightingBlueprint = RatioBlueprint()
    """how weights follow from what the models say"""

    @model_validator(mode="after")
    def _fits_into_a_table(self) -> WeighBlueprint:
        if not self.corpus.paired or self.corpus.denoises:
            raise ValueError(f"corpus: {self.corpus.kind} text has no sources; give pairs")
        if isinstance(self.corpus, MixtureBlueprint):
            raise ValueError("corpus: weigh one corpus after the other, and mix the tables")
        known = {
            "weight": self.corpus.weighted,
            "ease": self.corpus.graded,
            "alignment": self.corpus.aligned,
        }
        for name, there in known.items():
            if there:
                raise ValueError(f"corpus.{name}: the table will not hold it; leave it out")
        return self


class Pair(NamedTuple):
    """A source and one of its targets."""

    place: str
    source: str
    target: str


class Models(NamedTuple):
    """Who is asked, about what."""

    general: Transducer
    trusted: Transducer
    corpus: CorpusBlueprint
    base: Path

    def pairs(self, skipped: Skipped) -> Iterator[Pair]:
        """Yield every pair; deal with those that cannot be weighed as the corpus says."""
        for example in self.corpus.read(self.base, skipped):
            for target in example.references:
                pair = Pair(example.place, example.sources["source"], target)
                if fault := self._fault(pair):
                    self.corpus.refuse(fault, skipped)
                else:
                    yield pair

    def differences(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Return by how much the trusted model likes each target better, a symbol on average."""
        places, sources, targets = (list(column) for column in zip(*pairs, strict=True))
        if not self.general.panel.reads:
            sources = [""] * len(pairs)
        general, trusted = (
            [sum(token.log_prob for token in tokens) / len(tokens) for tokens in found]
            for found in (one.force(sources, targets, places) for one in self[:2])
        )
        found: NDArray[np.float64] = np.array(trusted) - np.array(general)
        if not np.isfinite(found).all():
            place = places[int(np.argmin(np.isfinite(found)))]
            raise Problem("one of the models gives it no probability; take it out", place)
        return found

    def _fault(self, pair: Pair) -> Fault | None:
        if {"\t", "\n"} & {*pair.source, *pair.target}:
            what = "a tab or a line feed in a text has no place in a table; take it out"
            return Fault(pair.place, "tab or line feed", what)
        sides = [("target", pair.target)]
        if self.general.panel.reads:
            sides.append(("source", pair.source))
        for model in self[:2]:
            longest = model.bundle.model.longest
            for side, text in sides:
                if longest[side] is None:
                    continue
                try:
                    model.panel.read(side, pair.place, text, pair.source)
                except Problem as problem:
                    return Fault(pair.place, "too many symbols for the model", problem.what)
        return None


def weigh(
    runs: tuple[Path, Path],
    data: Sequence[Path],
    out: Path,
    changes: Sequence[str],
    parts: Sequence[Path],
    show: Show,
) -> str:
    """Write a table of source, target, weight and difference; return what was done.

    ``runs`` are the general model and the one that has learned from trusted examples. Memory grows
    by a few numbers for each pair. Until all is done the table is in the folder ``OUT.part``, and
    the same command goes on there after whatever stopped it.

    Raises:
        Problem: the table exists or was begun with something else, the models do not go together,
            or the data is faulty.
    """
    if out.suffix != ".tsv":
        raise Problem("what is written is a table; let its name end in .tsv", str(out))
    if out.exists():
        raise Problem("this file exists; choose another name or remove it", str(out))
    general, trusted = (Transducer.load(run, parts=parts) for run in runs)
    _comparable(general, trusted, str(runs[1]))
    base = Path.cwd()
    setting = override(WeighBlueprint(corpus=corpus(data, base)), changes)
    models = Models(general, trusted, setting.corpus, base)
    unfinished = out.with_name(f"{out.name}.part")
    with folder.alone(unfinished, wait=False):
        identity = _identity(runs, setting.corpus)
        skipped = Skipped()
        differences = _measured(models, unfinished, identity, skipped, show)
        weights = setting.weighting.weights(differences)
        with (unfinished / TABLE).open("wb") as table:
            rows = zip(models.pairs(Skipped()), weights, differences, strict=True)
            for row in filter(None, (_row(models.corpus.tag, *one) for one in rows)):
                table.write(row.encode())
        if _identity(runs, setting.corpus) != identity:
            raise Problem("it changed while it was read; remove this and start again", str(out))
        folder.force(unfinished / TABLE)
        (unfinished / TABLE).replace(out)
        shutil.rmtree(unfinished)
    return _told(out, weights, skipped)


def _comparable(general: Transducer, trusted: Transducer, where: str) -> None:
    require_same_target(general.bundle, trusted.bundle, where)
    if general.panel.reads != trusted.panel.reads:
        raise Problem("one reads sources and the other is a language model; give two alike", where)


def _identity(runs: tuple[Path, Path], asked: CorpusBlueprint) -> str:
    """Return a SHA-256 of all that the differences follow from."""
    facts = {
        "models": [fingerprint(model_folder(run)) for run in runs],
        "files": [folder.digest(Path(name)) for name in asked.files if Path(name).is_file()],
        "corpus": asked.encoded(),
        "block": BLOCK,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _measured(
    models: Models, unfinished: Path, identity: str, skipped: Skipped, show: Show
) -> NDArray[np.float64]:
    """Return the differences of all pairs, those that are there already included."""
    kept = unfinished / DIFFERENCES
    if not (unfinished / STATE).exists():
        kept.write_bytes(b"")
        folder.write_json(unfinished / STATE, {"identity": identity})
    elif folder.read_json(unfinished / STATE)["identity"] != identity:
        raise Problem(
            "it was begun with other models or data; remove it, or choose another name",
            str(unfinished),
        )
    done = kept.stat().st_size // (8 * BLOCK) * BLOCK
    os.truncate(kept, 8 * done)
    if done:
        show.say(f"going on after pair {done:,}")
    pairs = models.pairs(skipped)
    for _ in islice(pairs, done):
        pass
    said = time.monotonic()
    with kept.open("ab") as file:
        while block := list(islice(pairs, BLOCK)):
            file.write(models.differences(block).astype("<f8").tobytes())
            file.flush()
            os.fsync(file.fileno())
            done += len(block)
            if time.monotonic() - said > PATIENCE:
                said = time.monotonic()
                show.say(f"{done:,} pairs")
    return np.fromfile(kept, "<f8")


def _row(tag: str | None, pair: Pair, weight: float, difference: float) -> str | None:
    """Return a row of the table, without the tag of the corpus; None for one that is worth 0."""
    if weight == 0:
        return None
    source = pair.source.removeprefix(f"{tag} ") if tag else pair.source
    return f"{source}\t{pair.target}\t{weight:.6g}\t{difference:.6g}\n"


def _told(out: Path, weights: NDArray[np.float64], skipped: Skipped) -> str:
    left_out = [f"{count:,} {reason}" for reason, count in skipped.counts.most_common()]
    if nothing := int((weights == 0).sum()):
        left_out.append(f"{nothing:,} that weigh nothing")
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    return (
        f"{out}: {int((weights > 0).sum()):,} of {len(weights):,} pairs, which weigh "
        f"{weights.sum():,.1f} together{rest}; train on it with weight: 3"
    )
