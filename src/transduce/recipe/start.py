"""A run that begins from a trained model: its settings, its vocabularies, its first weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from transduce import folder
from transduce.adapt import AdaptBlueprint
from transduce.adapt.start import Side, StartBlueprint, Taken, take
from transduce.adapt.vocabulary import Rows, extend, rows
from transduce.blueprint import Blueprint, read
from transduce.bundle import ADAPTER, CARD, Addendum, Bundle, fingerprint, model_folder
from transduce.experiment import Experiment
from transduce.models.seq2seq import Seq2Seq
from transduce.nn.addition import learned
from transduce.problem import Problem
from transduce.recipe.same import sound
from transduce.text.codec import TextBlueprint, TextCodec
from transduce.train.checkpoint import tensors

RECORD = "start.json"  # in the run folder: from what it began


def resolve(experiment: Experiment, base: Path, run: Path | None = None) -> Experiment:
    """Return the experiment with the base's ``model`` and ``text`` where these are left out.

    Where the base is gone, and the ``run`` goes on without it, they are those of the run.

    Raises:
        Problem: there is no such base, or what is written down does not go with it.
    """
    start = experiment.start
    if start is None:
        return experiment
    place = (base / start.run).resolve()
    experiment = _completed(experiment, {"start": start.model_copy(update={"run": str(place)})})
    if run is not None and _goes_alone(experiment, run):
        begun = read(run / "experiment.yaml", Experiment)
        return _completed(experiment, {"model": begun.model, "text": begun.text})
    found = _load(place)
    whole = _completed(experiment, {"model": found.blueprint.model, "text": _text(found)})
    if whole.adapt is not None:
        _same_model(whole, found, place)
    if start.vocabulary != "replace":
        _same_text(whole.text, found, _kept(whole, start))
    return whole


def _completed(experiment: Experiment, known: Mapping[str, Blueprint]) -> Experiment:
    """Return the experiment with what is known, but for a model or text that it has itself."""
    given = experiment.model_fields_set - {"start"}
    facts = {name: getattr(experiment, name) for name in experiment.model_fields_set}
    facts |= {name: value for name, value in known.items() if name not in given}
    try:
        return Experiment.model_validate(facts)
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        assert experiment.start is not None
        raise Problem(said, f"start: {experiment.start.run}") from None


def _goes_alone(experiment: Experiment, run: Path) -> bool:
    """Whether a run needs its base no more, as its checkpoints hold all weights, and it is gone."""
    if experiment.start is None or experiment.adapt is not None:
        return False
    try:
        model_folder(Path(experiment.start.run))
    except Problem:
        return sound(run / "checkpoints") is not None
    return False


def _same_model(whole: Experiment, found: Bundle, place: Path) -> None:
    """Refuse to add anything to what is no plain model, or another than will be saved."""
    if (model_folder(place) / ADAPTER).is_file():
        raise Problem(
            "this is an adapter itself; merge it first: transduce merge ADAPTER MODEL", str(place)
        )
    if whole.model != found.blueprint.model:
        raise Problem(
            "an adapter goes with the model that it was made for, and this is another; leave model "
            "out to have the base's",
            "model",
        )


def _text(found: Bundle) -> TextBlueprint:
    source, target = (found.codecs[side].blueprint for side in ("source", "target"))
    joint, reserved = found.blueprint.joint, found.codecs["source"].reserved
    return TextBlueprint(
        source=source, target=None if joint else target, joint=joint, reserved=reserved
    )


def _kept(experiment: Experiment, start: StartBlueprint) -> frozenset[Side]:
    return frozenset({"source", "target"}) if experiment.one_vocabulary else start.sides


def _same_text(text: TextBlueprint, found: Bundle, kept: frozenset[Side]) -> None:
    """Refuse texts that would be cut otherwise than those that the base has learned from."""
    if text.of is not None:
        raise Problem(
            "the vocabulary is the base's already; leave it out, or set start.vocabulary: replace",
            "text.of",
        )
    if text.joint and not found.blueprint.joint:
        raise Problem(
            "the base has a vocabulary for each side; leave text out, or set start.vocabulary: "
            "replace",
            "text.joint",
        )
    settings = {"source": text.source, "target": text.target or text.source}
    for side in sorted(kept):
        if settings[side] != found.codecs[side].blueprint:
            raise Problem(
                "a vocabulary that is kept cuts texts as it did; leave text out to have all of the "
                "base's settings, or set start.vocabulary: replace",
                f"text.{side if text.target else 'source'}",
            )


def codecs(
    experiment: Experiment, learn: Callable[[], dict[str, TextCodec]]
) -> Mapping[str, TextCodec]:
    """Return the codecs: the base's where they are kept, those of ``learn`` otherwise.

    Raises:
        Problem: a vocabulary cannot be extended.
    """
    start = experiment.start
    if start is None or start.vocabulary == "replace":
        return learn()
    kept = _kept(experiment, start)
    found = _load(Path(start.run)).codecs
    if start.vocabulary == "keep":
        both = len(kept) == 2
        return {**({} if both else learn()), **{side: found[side] for side in kept}}
    made = learn()
    if experiment.one_vocabulary:
        joint = extend(found["source"], made["source"], "text")
        return {"source": joint, "target": joint}
    return made | {side: extend(found[side], made[side], side) for side in kept}


def begin(
    model: Seq2Seq,
    own: Mapping[str, TextCodec],
    experiment: Experiment,
    run: Path | None,
    remember: bool = True,
) -> list[str]:
    """Give a new model what it takes from its base; return what happened, for people.

    A run folder remembers its base, if it is to ``remember``, and goes on with no other.

    Raises:
        Problem: something does not fit, or the base is not what it was when the run began.
    """
    start = experiment.start
    if start is None:
        return []
    if run is not None and _goes_alone(experiment, run):
        return [f"its base, {start.run}, is gone: all weights are those of the checkpoint"]
    place, found = model_folder(Path(start.run)), _load(Path(start.run))
    origins: dict[Side, Rows] = {
        side: rows(own[side], found.codecs[side]) for side in ("source", "target")
    }
    taken = take(model, found.model, start, origins)
    adapted = _adapt(model, experiment.adapt)
    if run is not None and remember:
        _remember(run / RECORD, place, taken)
    said = [f"begins from {place}: {len(taken.taken)} parameters taken"]
    said += [f"new: {', '.join(taken.new)}"] if taken.new else []
    said += [f"left there: {', '.join(taken.left)}"] if taken.left else []
    tables = [f"{side} vocabulary: {origins[side]}" for side in sorted(start.sides)]
    return ["; ".join(said), *tables, *adapted]


def _load(place: Path) -> Bundle:
    """Load the base, which may have low-rank changes, but no layers that its blueprint lacks."""
    found = Bundle.load(model_folder(place))
    if found.addendum is not None and not found.addendum.adapt.merges:
        raise Problem(
            f"this is a {found.addendum.adapt.kind} adapter, which is no model to begin from; take "
            f"its base, {found.addendum.base}",
            str(place),
        )
    return found


def _adapt(model: Seq2Seq, adapt: AdaptBlueprint | None) -> list[str]:
    """Add what learns alone; say how much it is."""
    if adapt is None:
        return []
    whole = sum(parameter.numel() for parameter in model.parameters())
    adapt.adapt(model)
    count = sum(parameter.numel() for parameter in learned(model).values())
    return [f"{adapt.kind}: {count:,} parameters learn beside {whole:,} that stay"]


def addendum(experiment: Experiment) -> Addendum | None:
    """Return what a run adds to its base, where it adds anything."""
    if experiment.start is None or experiment.adapt is None:
        return None
    place = model_folder(Path(experiment.start.run))
    return Addendum(place, fingerprint(place), experiment.adapt)


def merge(source: Path, target: Path, base: Path | None) -> str:
    """Write the model that an adapter and its base make together as a model folder of its own.

    Raises:
        Problem: there is no adapter, it cannot be merged, or the folder exists.
    """
    place = model_folder(source)
    if not (place / ADAPTER).is_file():
        raise Problem("this is a whole model; there is nothing to merge", str(source))
    if target.exists():
        raise Problem("it exists; name a new folder", str(target))
    found = Bundle.load(place, None if base is None else model_folder(base))
    if found.addendum is not None and not found.addendum.adapt.merges:
        raise Problem(
            f"{found.addendum.adapt.kind} adapters are layers of their own, of which no weights "
            "can be made; keep the folder with its base",
            str(source),
        )
    found = replace(found, addendum=None)
    found.save(target, tensors(found.model), (place / CARD).read_text(encoding="utf-8"))
    return f"model: {target}"


def _remember(record: Path, place: Path, taken: Taken) -> None:
    """Write down what the base was; refuse another one."""
    mark = fingerprint(place)
    if record.exists() and folder.read_json(record)["fingerprint"] != mark:
        raise Problem(
            "this is not the model that the run began from; put that back, or choose another "
            "folder for this run",
            str(place),
        )
    facts = {"base": str(place), "fingerprint": mark, **taken._asdict()}
    if not record.exists() or folder.read_json(record) != facts:
        record.parent.mkdir(parents=True, exist_ok=True)
        folder.write_json(record, facts)
