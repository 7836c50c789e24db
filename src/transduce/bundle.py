"""A model folder: all that a trained model needs to be used, as data alone, and nothing else.

``blueprint.json`` (versioned), ``weights.safetensors``, one codec for each side, a card for people
(``README.md``) and ``manifest.json`` with size and SHA-256 of every file. Loading runs no code from
the folder and refuses a folder of which one bit was changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transduce import __version__, folder
from transduce.adapt import AdaptBlueprint
from transduce.blueprint import Blueprint, own, read
from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.addition import settle
from transduce.problem import Problem
from transduce.search.constrain import ConstraintBlueprint
from transduce.search.interface import SearchBlueprint
from transduce.search.length import Length
from transduce.text.codec import TextCodec
from transduce.train.checkpoint import load_tensors

FORMAT = 1
BLUEPRINT, WEIGHTS, CARD = "blueprint.json", "weights.safetensors", "README.md"
ADAPTER = "adapter.json"  # instead of a blueprint, in the folder of what was added to a model


class BundleBlueprint(Blueprint):
    """What ``blueprint.json`` holds."""

    format: int = FORMAT
    """version of the folder's layout"""
    transduce: str = __version__
    """version that wrote it"""
    model: ModelBlueprint
    """the architecture"""
    search: SearchBlueprint
    """how it is meant to be searched"""
    length: Length = Length()
    """how long answers may be"""
    constraints: tuple[ConstraintBlueprint, ...] = ()
    """what its answers have to obey"""
    joint: bool = False
    """one codec serves both sides"""
    temperature: float = Field(1.0, gt=0)
    """divisor of log-probabilities that makes confidences of them; nothing else depends on it"""
    longest: tuple[float, int]
    """the most target tokens where length says nothing: this many for each source token, and this
    many more"""
    parts: Mapping[str, str] = Field({})
    """files of parts that do not come with the package, and their SHA-256"""


class AdapterBlueprint(Blueprint):
    """What ``adapter.json`` holds."""

    format: int = FORMAT
    """version of the folder's layout"""
    transduce: str = __version__
    """version that wrote it"""
    base: str
    """where the model folder is that it was added to, seen from this one"""
    fingerprint: str
    """of that model folder"""
    adapt: AdaptBlueprint
    """what was added"""
    search: SearchBlueprint
    """how it is meant to be searched"""
    length: Length
    """how long answers may be"""
    constraints: tuple[ConstraintBlueprint, ...]
    """what its answers have to obey"""
    temperature: float = Field(1.0, gt=0)
    """divisor of log-probabilities that makes confidences of them"""
    longest: tuple[float, int]
    """the most target tokens where length says nothing"""
    parts: Mapping[str, str] = Field({})
    """files of parts that do not come with the package, the base's among them, and their SHA-256"""


@dataclass(frozen=True)
class Addendum:
    """What a model is besides its base, which lies elsewhere and is not saved again."""

    base: Path
    fingerprint: str
    adapt: AdaptBlueprint


@dataclass(frozen=True)
class Bundle:
    """A trained model with its codecs; with an addendum, one that was made of another by little."""

    blueprint: BundleBlueprint
    codecs: Mapping[str, TextCodec]
    model: Seq2Seq
    addendum: Addendum | None = None

    @classmethod
    def make(
        cls,
        blueprint: BundleBlueprint,
        codecs: Mapping[str, TextCodec],
        addendum: Addendum | None = None,
    ) -> Bundle:
        """Build the (untrained) model for the codecs; what an addendum adds is not yet in it."""
        parts = own.files(blueprint)
        blueprint = blueprint.model_copy(update={"parts": parts})
        sizes = {name: codec.size for name, codec in codecs.items()}
        return cls(blueprint, codecs, build(blueprint.model, sizes), addendum)

    def save(self, target: Path, weights: Mapping[str, Tensor], card: str) -> None:
        """Write the model folder with the given weights, whole or not at all.

        With an addendum they are what was added, and the folder holds that alone.
        """

        def fill(fresh: Path) -> None:
            save_file(dict(weights), fresh / WEIGHTS)
            (fresh / CARD).write_text(card, encoding="utf-8", newline="\n")
            if self.addendum is not None:
                facts = _adapter(self.addendum, self.blueprint, target)
                folder.write_json(fresh / ADAPTER, facts.model_dump(mode="json"))
                return
            folder.write_json(fresh / BLUEPRINT, self.blueprint.model_dump(mode="json"))
            save_codecs(fresh, self.codecs, self.blueprint.joint)

        folder.write(target, fill)

    @classmethod
    def load(cls, source: Path, base: Path | None = None) -> Bundle:
        """Read a model folder; ``base`` is that of the model it was added to, if that has moved.

        Low-rank changes are made a part of the weights.

        Raises:
            Problem: it is no model folder, is damaged, was written by a later version, or was added
                to another model than its base.
        """
        folder.verify(source)
        if (source / ADAPTER).is_file():
            _check_format(source / ADAPTER)
            return _adapted(read(source / ADAPTER, AdapterBlueprint), source, base)
        if base is not None:
            raise Problem("this is a whole model, which needs no base; leave it out", str(source))
        _check_format(source / BLUEPRINT)
        blueprint = read(source / BLUEPRINT, BundleBlueprint)
        bundle = cls.make(blueprint, load_codecs(source, blueprint.joint))
        _warn_of_others(bundle.blueprint.parts, blueprint.parts)
        load_tensors(bundle.model, read_weights(source / WEIGHTS), source / WEIGHTS)
        return bundle


def _warn_of_others(now: Mapping[str, str], recorded: Mapping[str, str]) -> None:
    """Say which files of parts are not those that were recorded."""
    if others := [path for path, digest in now.items() if digest not in recorded.values()]:
        what = "not what it was when this model was trained"
        warnings.warn(f"{', '.join(others)}: {what}", stacklevel=3)


def _check_format(path: Path) -> None:
    written = folder.read_json(path)
    if written.get("format", 0) > FORMAT:
        raise Problem(
            f"this folder has format {written['format']}, this version of transduce reads up "
            f"to {FORMAT}; install transduce {written.get('transduce', '')} or later",
            str(path),
        )


def _adapter(addendum: Addendum, blueprint: BundleBlueprint, target: Path) -> AdapterBlueprint:
    where = os.path.relpath(addendum.base.resolve(), target.resolve())
    return AdapterBlueprint(
        base=Path(where).as_posix(),
        fingerprint=addendum.fingerprint,
        adapt=addendum.adapt,
        search=blueprint.search,
        length=blueprint.length,
        constraints=blueprint.constraints,
        temperature=blueprint.temperature,
        longest=blueprint.longest,
        parts=own.files(blueprint, addendum.adapt),
    )


def _adapted(blueprint: AdapterBlueprint, source: Path, base: Path | None) -> Bundle:
    """Load the base and add to it what a folder holds."""
    place = base or Path(os.path.normpath(source.resolve() / blueprint.base))
    if not is_bundle(place):
        raise Problem(
            f"this was added to the model in {place}, and there is none; put it there, or say "
            "where it is (base=FOLDER, or transduce merge --base FOLDER)",
            str(source),
        )
    if fingerprint(place) != blueprint.fingerprint:
        raise Problem(
            f"this was added to another model than the one in {place} (fingerprint "
            f"{blueprint.fingerprint[:12]}); say where that is",
            str(source),
        )
    found = Bundle.load(place)
    names = ("search", "length", "constraints", "temperature", "longest")
    facts = {name: getattr(blueprint, name) for name in names}
    now = {**found.blueprint.parts, **own.files(blueprint)}
    if blueprint.parts:  # earlier versions recorded none
        _warn_of_others(now, blueprint.parts)
    blueprint.adapt.adapt(found.model)
    load_tensors(found.model, read_weights(source / WEIGHTS), source / WEIGHTS)
    settle(found.model)
    return replace(
        found,
        blueprint=found.blueprint.model_copy(update=facts),
        addendum=Addendum(place, blueprint.fingerprint, blueprint.adapt),
    )


def require_same_target(first: Bundle, other: Bundle, where: str) -> None:
    """Refuse models that cannot score the same target symbols together.

    Raises:
        Problem: their target vocabularies differ, or numbers that stand for words of the source do.
    """
    ours, theirs = (bundle.codecs["target"] for bundle in (first, other))
    if ours.fingerprint != theirs.fingerprint:
        raise Problem(
            f"its target vocabulary ({theirs.blueprint.tokens.kind} {theirs.size}) is not that of "
            f"the first model ({ours.blueprint.tokens.kind} {ours.size}), so their scores are "
            "about different symbols; train both with the same target text and settings",
            where,
        )
    slots = {bundle.blueprint.model.head.slots for bundle in (first, other)}
    sources = {bundle.codecs["source"].fingerprint for bundle in (first, other)}
    if slots != {0} and len(slots) + len(sources) > 2:
        raise Problem(
            "one of these models copies new words by their number in the source, and the other "
            "numbers them differently; give all the same source text and model.head.new_words",
            where,
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        Problem: it is none.
    """
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise Problem(f"it cannot be read ({error}); take another copy", str(path)) from None
    return weights


def save_codecs(target: Path, codecs: Mapping[str, TextCodec], joint: bool) -> None:
    """Write the codec of each side; a joint one once."""
    for name in ["source"] if joint else list(codecs):
        codecs[name].save(target, "joint" if joint else name)


def load_codecs(source: Path, joint: bool) -> dict[str, TextCodec]:
    """Read what ``save_codecs`` wrote."""
    if joint:
        codec = TextCodec.load(source, "joint")
        return {"source": codec, "target": codec}
    return {name: TextCodec.load(source, name) for name in ("source", "target")}


def is_bundle(path: Path) -> bool:
    """Whether a folder looks like a model folder."""
    return (path / BLUEPRINT).is_file() or (path / ADAPTER).is_file()


def model_folder(path: Path) -> Path:
    """Return the model folder that is meant by the folder of a run or of a model.

    Raises:
        Problem: there is none.
    """
    if is_bundle(path):
        return path
    folder.recover(path / "model")
    if not (path / "model").exists():
        missing = "holds no trained model yet" if path.is_dir() else "no such folder"
        raise Problem(f"{missing}; give the folder of a run or of a model", str(path))
    return path / "model"


def fingerprint(source: Path) -> str:
    """Return a SHA-256 of what a model folder answers by: weights, codecs and architecture.

    Its card, and how it is meant to be searched, may change.
    """
    listed = folder.read_json(source / folder.MANIFEST)["files"]
    rest = (CARD, BLUEPRINT, ADAPTER)
    hashes = {name: facts["sha256"] for name, facts in listed.items() if name not in rest}
    written = folder.read_json(source / (BLUEPRINT if BLUEPRINT in listed else ADAPTER))
    made = {name: written.get(name) for name in ("model", "fingerprint", "adapt")}
    whole = json.dumps([hashes, made], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()
