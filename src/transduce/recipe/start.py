"""A run that begins from a trained model: its settings, its vocabularies, its first weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from transduce import folder
from transduce.adapt.start import Side, StartBlueprint, Taken, take
from transduce.adapt.vocabulary import Rows, extend, rows
from transduce.bundle import Bundle, fingerprint, model_folder
from transduce.experiment import Experiment
from transduce.models.seq2seq import Seq2Seq
from transduce.problem import Problem
from transduce.text.codec import TextBlueprint, TextCodec

RECORD = "start.json"  # in the run folder: from what it began


def resolve(experiment: Experiment, base: Path) -> Experiment:
    """Return the experiment with the base's ``model`` and ``text`` where these are left out.

    Raises:
        Problem: there is no such base, or what is written down does not go with it.
    """
    start = experiment.start
    if start is None:
        return experiment
    place = (base / start.run).resolve()
    found = Bundle.load(model_folder(place))
    facts = {name: getattr(experiment, name) for name in Experiment.model_fields}
    facts["start"] = start.model_copy(update={"run": str(place)})
    if "model" not in experiment.model_fields_set:
        facts["model"] = found.blueprint.model
    if "text" not in experiment.model_fields_set:
        facts["text"] = _text(found)
    try:
        whole = Experiment.model_validate(facts)
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise Problem(said, f"start: {start.run}") from None
    if start.vocabulary != "replace":
        _same_text(whole.text, found, _kept(whole.text, start))
    return whole


def _text(found: Bundle) -> TextBlueprint:
    source, target = (found.codecs[side].blueprint for side in ("source", "target"))
    joint = found.blueprint.joint
    return TextBlueprint(source=source, target=None if joint else target, joint=joint)


def _kept(text: TextBlueprint, start: StartBlueprint) -> frozenset[Side]:
    return frozenset({"source", "target"}) if text.joint else start.sides


def _same_text(text: TextBlueprint, found: Bundle, kept: frozenset[Side]) -> None:
    """Refuse texts that would be cut otherwise than those that the base has learned from."""
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
    kept = _kept(experiment.text, start)
    found = Bundle.load(model_folder(Path(start.run))).codecs
    if start.vocabulary == "keep":
        both = len(kept) == 2
        return {**({} if both else learn()), **{side: found[side] for side in kept}}
    made = learn()
    if experiment.text.joint:
        joint = extend(found["source"], made["source"].tokeniser.vocabulary, "text")
        return {"source": joint, "target": joint}
    return made | {
        side: extend(found[side], made[side].tokeniser.vocabulary, side) for side in kept
    }


def begin(
    model: Seq2Seq, own: Mapping[str, TextCodec], experiment: Experiment, run: Path | None
) -> list[str]:
    """Give a new model what it takes from its base; return what happened, for people.

    A run folder remembers its base, and goes on with no other.

    Raises:
        Problem: something does not fit, or the base is not what it was when the run began.
    """
    start = experiment.start
    if start is None:
        return []
    place = model_folder(Path(start.run))
    found = Bundle.load(place)
    origins: dict[Side, Rows] = {
        side: rows(own[side], found.codecs[side]) for side in ("source", "target")
    }
    taken = take(model, found.model, start, origins)
    if run is not None:
        _remember(run / RECORD, place, taken)
    said = [f"begins from {place}: {len(taken.taken)} parameters taken"]
    said += [f"new: {', '.join(taken.new)}"] if taken.new else []
    said += [f"left there: {', '.join(taken.left)}"] if taken.left else []
    tables = [f"{side} vocabulary: {origins[side]}" for side in sorted(start.sides)]
    return ["; ".join(said), *tables]


def _remember(record: Path, place: Path, taken: Taken) -> None:
    """Write down what the base was; refuse another one."""
    mark = fingerprint(place)
    if record.exists() and folder.read_json(record)["fingerprint"] != mark:
        raise Problem(
            "this is not the model that the run began from; put that back, or choose another "
            "folder for this run",
            str(place),
        )
    record.parent.mkdir(parents=True, exist_ok=True)
    folder.write_json(record, {"base": str(place), "fingerprint": mark, **taken._asdict()})
