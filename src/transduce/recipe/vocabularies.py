"""Where the vocabularies of a run come from: its training text, or another run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from transduce import folder
from transduce.blueprint import read
from transduce.bundle import BLUEPRINT, BundleBlueprint, is_bundle, load_codecs
from transduce.experiment import Experiment
from transduce.problem import Problem
from transduce.text.codec import TextCodec, learn_codecs


def vocabularies(
    experiment: Experiment,
    sources: Iterable[str],
    targets: Iterable[str],
    reserved: Sequence[str] = (),
) -> dict[str, TextCodec]:
    """Return the codecs "source" and "target"; those of a language model are one.

    ``reserved`` are symbols that the corpora need beside those of their texts.

    Raises:
        Problem: the text leaves nothing to learn, or the run that is named has no such codecs.
    """
    text = experiment.text
    if text.of is not None:
        return _taken(experiment, text.of)
    if experiment.model.encoder.reads:
        return learn_codecs(text, sources, targets, reserved)
    codec = TextCodec.learn(text.target or text.source, targets, text.reserved)
    return {"source": codec, "target": codec}


def _taken(experiment: Experiment, run: str) -> dict[str, TextCodec]:
    """Return the codecs of a run or of a model folder."""
    path = Path(run)
    path = path if is_bundle(path) else path / "model"
    if not is_bundle(path):
        raise Problem(f"{run} holds no trained model; name the folder of a run", "text.of")
    folder.verify(path)
    other = read(path / BLUEPRINT, BundleBlueprint)
    codecs = load_codecs(path, other.joint)
    if not experiment.model.encoder.reads:
        return {"source": codecs["target"], "target": codecs["target"]}
    if other.joint != experiment.text.joint:
        wanted = str(other.joint).lower()
        raise Problem(f"set it to {wanted}, as it is in {run}", "text.joint")
    return codecs
