"""From an experiment to what training needs: codecs, encoded corpora, and what is in them."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transduce import __version__, blueprint, bundle, folder
from transduce.data.batch import Batch, Example
from transduce.data.corpora import open_rows
from transduce.data.in_order import cores
from transduce.data.lines import Skipped
from transduce.data.mixture import Mixed
from transduce.data.quantile import upper_quantile
from transduce.data.rows import Rows
from transduce.data.store import Encoding
from transduce.data.stream import by_length
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.recipe import start
from transduce.recipe.same import same_data, same_schedule
from transduce.recipe.vocabularies import vocabularies
from transduce.text.codec import TextCodec
from transduce.train import checkpoint
from transduce.train.progress import Show

FREE = (  # settings that may change between the parts of a run without making it another run
    ("train", "max_steps"),
    ("train", "log_every"),
    ("train", "tensorboard"),
    ("train", "time_limit"),
    ("train", "threads"),
    ("train", "recompute"),
    ("train", "memory"),
    ("train", "sharding"),
    ("train", "faults", "returns"),
    ("train", "faults", "kept"),
    ("validation", "patience"),
    ("validation", "keep"),
    ("validation", "average"),
    ("data", "test"),
    ("search",),
    ("length",),
    ("published",),
    ("parts",),  # where the files lie
    ("start", "run"),  # where the base lies; which it is, the run remembers
)


BLOCK = 2**18  # rows that are looked at together
SHARE = 0.999  # of the training examples, whose answers decide how long others may get
DEV_TOKENS = 8192  # positions of a batch when no gradient is needed


@dataclass(frozen=True)
class Prepared:
    """The data of a run, as the model sees it."""

    codecs: Mapping[str, TextCodec]
    train: Rows
    dev_store: Rows
    dev: list[Example]
    test: list[Example]
    counts: Mapping[str, Mapping[str, Any]]
    longest: tuple[float, int]

    def dev_parts(self) -> Sequence[Rows]:
        """Return what of dev has a loss of its own: each corpus if a mixture follows these."""
        follows = isinstance(self.train, Mixed) and self.train.follow is not None
        if follows and isinstance(self.dev_store, Mixed):
            return self.dev_store.parts
        return [self.dev_store]


def in_batches(rows: Rows) -> Iterator[Batch]:
    """Yield all rows in batches of like length, for their loss."""
    lengths = rows.lengths(np.arange(len(rows))).max(0)
    return (rows.batch(chosen) for chosen in by_length(lengths, DEV_TOKENS))


def prepare(experiment: Experiment, base: Path, run: Path | None, show: Show) -> Prepared:
    """Learn the codecs or take those of the run, and encode the corpora (or find them encoded).

    With a folder, writes there the experiment and the codecs; without, leaves nothing but the
    encoded corpora in the cache.

    Raises:
        Problem: the data, or a run folder of another experiment.
    """
    if run is not None:
        _same_experiment(experiment, run)
    codecs = _codecs(experiment, base, run, show)
    _has_all(codecs["source"], [*experiment.text.reserved, *_reserved(experiment)])
    data, slots = experiment.data, experiment.model.head.slots
    if slots and codecs["source"].tokeniser.vocabulary.spells:
        raise Problem(
            "nothing is new to a vocabulary that spells in bytes; set new_words: 0, or "
            "byte_fallback: false in text.source.tokens",
            "model.head.new_words",
        )
    stores = {
        name: open_rows(
            corpus, base, Encoding(codecs, data.limits, name == "train", slots, cores()), cache()
        )
        for name, corpus in (("train", data.train), ("dev", data.dev))
    }
    skipped = {name: store.skipped for name, store in stores.items()}
    test: list[Example] = []
    if data.test is not None:
        skipped["test"] = Skipped()
        test = list(data.test.read(base, skipped["test"]))
    counts = {name: _counts(store) for name, store in stores.items()}
    counts |= {"test": {"examples": len(test)}} if test else {}
    for name, left_out in skipped.items():
        counts[name]["skipped"] = sum(left_out.counts.values())
        _tell(name, left_out, show)
    counts["vocabulary"] = {name: codec.size for name, codec in codecs.items()}
    for name, store in stores.items():
        counts[name]["fingerprint"] = store.fingerprint
        if run is not None:
            same_data(name, store.fingerprint, run)
    train, dev = stores["train"], stores["dev"]
    if slots and train.largest("source") < codecs["source"].size:
        show.say(
            "warning: the vocabulary holds all that is in the training sources, so that nothing "
            "teaches the model to copy new words; raise min_count in text.source.tokens"
        )
    examples = [dev.example(index) for index in range(dev.examples)]
    most = longest(train, experiment.model.encoder.reads)
    return Prepared(codecs, train, dev, examples, test, counts, most)


def _counts(store: Rows) -> dict[str, Any]:
    """Return how much a store holds, for people and for the report."""
    found: dict[str, Any] = {"examples": store.examples}
    for side, counts in store.counts.items():
        found |= {
            f"{side}_tokens": counts.symbols,
            f"longest_{side}": counts.longest,
            f"unknown_{side}": counts.unknown,
        }
    return found


def cache() -> Path:
    """Return where encoded corpora are kept: $TRANSDUCE_CACHE, or the cache folder of the user."""
    given = os.environ.get("TRANSDUCE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "transduce"


def device(setting: str) -> torch.device:
    """Return where to compute: on a GPU if it was asked for, or if there is one ("auto").

    Raises:
        Problem: it was asked for and there is none.
    """
    usable = torch.cuda.is_available()
    if setting == "cuda" and not usable:
        raise Problem("torch finds no GPU here; set it to auto or cpu", "train.device")
    return torch.device("cuda" if usable and setting != "cpu" else "cpu")


def environment(precision: str, device: str) -> dict[str, Any]:
    """Return what a figure of this run depends on besides the experiment."""
    return {
        "transduce": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "precision": precision,
        "command": " ".join(sys.argv),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def processor() -> str:
    """Return what this machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def _same_experiment(experiment: Experiment, run: Path) -> None:
    """Write the experiment into a new run folder; refuse an old one of another experiment."""
    path = run / "experiment.yaml"
    if path.exists():
        begun = blueprint.read(path, Experiment)
        before = _settings(begun)
        now = _settings(experiment)
        changed = sorted(
            key for key in before.keys() | now.keys() if before.get(key) != now.get(key)
        )
        changed = [key for key in changed if not any(key[: len(free)] == free for free in FREE)]
        if changed:
            raise Problem(
                f"this run was begun with other settings ({'.'.join(changed[0])} and "
                f"{len(changed) - 1} more); choose another folder, or put them back to go on",
                str(run),
            )
        same_schedule(begun, experiment, run)
    elif checkpoint.every(run / "checkpoints"):
        raise Problem(
            "this run has checkpoints, but its experiment.yaml, which says what they are of, is "
            "gone; put it back to go on, or choose another folder",
            str(run),
        )
    folder.make(run)
    text = blueprint.dump(experiment)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        folder.write_text(path, text)


def _settings(experiment: Experiment) -> dict[tuple[str, ...], Any]:
    """Return every setting by its path."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key))
        else:
            found[path] = value

    walk(experiment.model_dump(mode="json"), ())
    return found


def _codecs(
    experiment: Experiment, base: Path, run: Path | None, show: Show
) -> Mapping[str, TextCodec]:
    kept = run / "text" if run else None
    if kept and kept.exists():
        folder.verify(kept)
        return bundle.load_codecs(kept, experiment.one_vocabulary)

    def learn() -> dict[str, TextCodec]:
        show.say("taking the vocabulary" if experiment.text.of else "learning the vocabulary")
        corpus = experiment.data.train
        sources, targets = corpus.texts(base, "source"), corpus.texts(base, "target")
        return vocabularies(experiment, sources, targets, _reserved(experiment))

    codecs = start.codecs(experiment, learn)
    if kept:
        joint = experiment.one_vocabulary
        folder.write(kept, lambda fresh: bundle.save_codecs(fresh, codecs, joint))
    return codecs


def _reserved(experiment: Experiment) -> list[str]:
    """Return the symbols that the corpora need beside those of their texts."""
    data = experiment.data
    return [
        mark for corpus in (data.train, data.dev, data.test) if corpus for mark in corpus.reserved
    ]


def _has_all(codec: TextCodec, reserved: Sequence[str]) -> None:
    """Refuse a vocabulary, learned elsewhere, that would spell such symbols in letters."""
    if missing := [mark for mark in reserved if mark not in codec.reserved]:
        raise Problem(
            f"the vocabulary has no symbol {missing[0]}; name it there, in text.reserved, before "
            "the vocabulary is learned",
            "data",
        )


def _tell(name: str, skipped: Skipped, show: Show) -> None:
    """Say what was left out, why, and where the first ones stand."""
    for reason, count in skipped.counts.items():
        places = skipped.places[reason]
        show.say(f"warning: {name}: {count} skipped ({reason}): {', '.join(places[:5])}")


def longest(store: Rows, reads: bool = True) -> tuple[float, int]:
    """Return how long an answer can get: all but one in a thousand training examples, and ten.

    What a language model adds to a beginning does not depend on how long that is.
    """
    starts = range(0, len(store), BLOCK)
    lengths = (store.lengths(np.arange(start, min(start + BLOCK, len(store)))) for start in starts)
    if not reads:
        return 1.0, int(upper_quantile((target for _, target in lengths), len(store), SHARE)) + 10
    ratios = (target / source for source, target in lengths)
    return upper_quantile(ratios, len(store), SHARE), 10
