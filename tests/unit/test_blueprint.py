"""Configuration: what is read, what the command line changes, and what is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import (
    FULL,
    SHORT,
    Additive,
    Bleu,
    Chrf,
    Data,
    Encoder,
    Experiment,
    Metric,
    Recurrent,
    Scaled,
    Stack,
    Training,
    Transformer,
    mistake,
)

from transduce.blueprint import Blueprint, dump, override, parse, read, schema
from transduce.problem import Problem


def test_a_full_file_is_read_as_written() -> None:
    read_ = parse(FULL, Experiment)
    assert read_ == Experiment(
        data=Data(
            training=(Path("train.tsv"),), language="no", normalisation="nfkc", limits=(1, 100)
        ),
        encoder=Transformer(width=128, heads=8, activation="swish", score=Scaled(temperature=2)),
        training=Training(
            steps=500, learning_rate=1e-3, patience="forever", precision="bfloat16", smoothing=0
        ),
        metrics=(Bleu(), Chrf(beta=3)),
        weights={"news": 2},
        note="1:30",
    )
    assert parse("\ufeff" + SHORT.replace("\n", "\r\n"), Experiment) == parse(SHORT, Experiment)


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["training.learning_rate=3e-4"], "training.learning_rate", 3e-4),
        (["data.language=no"], "data.language", "no"),
        (["encoder.width=512"], "encoder.width", 512),
        (["encoder=recurrent", "encoder.cell=gru"], "encoder.cell", "gru"),
        (["encoder.kind=recurrent"], "encoder", Recurrent()),
        (["encoder={kind: recurrent, cell: gru}"], "encoder.cell", "gru"),
        (["encoder.score.temperature=2"], "encoder", Transformer(score=Scaled(temperature=2))),
        (["metrics=[chrf, bleu]"], "metrics", (Chrf(), Bleu())),
        (["metrics.0=chrf", "metrics.0.beta=1"], "metrics", (Chrf(beta=1),)),
        (["weights.news=2"], "weights", {"news": 2}),
        (["note=a=b"], "note", "a=b"),
        (['note=""'], "note", ""),
        (["training.precision="], "training.precision", None),
    ],
)
def test_overrides_change_what_the_file_or_the_defaults_say(
    overrides: list[str], path: str, value: object
) -> None:
    found: Any = parse(SHORT, Experiment, overrides=overrides)
    for key in path.split("."):
        found = getattr(found, key)
    assert found == value


def test_overriding_the_kind_keeps_the_keys_of_the_file() -> None:
    text = SHORT + "encoder: {kind: recurrent, layers: 3}"
    assert parse(text, Experiment, overrides=["encoder.kind=recurrent"]).encoder == Recurrent(
        layers=3
    )
    assert mistake(text, "encoder.kind=transformer") == (
        "g2p.yaml:2: encoder.layers: no such key; it belongs in encoder of kind recurrent"
    )


def test_a_blueprint_is_overridden_like_a_file() -> None:
    old = parse(SHORT + "encoder: {kind: recurrent, layers: 3}", Experiment)
    assert override(old, ["encoder.cell=gru"]).encoder == Recurrent(layers=3, cell="gru")
    assert override(old, ["encoder.kind=transformer"]).encoder == Transformer()
    assert override(old, []) == old
    with pytest.raises(Problem, match=r"^encoder.cel=gru: no such key; did you mean 'cell'"):
        override(old, ["encoder.cel=gru"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("training.stepps=3", "no such key; did you mean 'steps'?"),
        ("trianing.steps=3", "trianing: no such key; did you mean 'training'?"),
        ("steps=3", "no such key; it belongs in training"),
        ("training.steps=x", "expected a whole number >= 1, found 'x'"),
        ("encoder.knd=recurrent", "no such key; did you mean 'kind'?"),
        ("encoder={kind: recurrent, cel: gru}", "encoder.cel: no such key; did you mean 'cell'?"),
        ("metrics=[bleu", "the [ of line 1 is not closed"),
        ("metrics.1=bleu", "there is no 1 in a list of 1"),
        ("note.x=3", "there is no x in ''"),
        ("steps", "expected key=value, such as train.max_steps=1000"),
        ("a..b=3", "expected key=value, such as train.max_steps=1000"),
        (
            "note=\udcff",
            r'the character U+DCFF must not stand here; write "\uDCFF" in double quotes',
        ),
    ],
)
def test_a_mistake_in_an_override_names_the_override(change: str, says: str) -> None:
    assert mistake(SHORT, change) == f"{change}: {says}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = tmp_path / "g2p.yaml"
    good.write_text(SHORT)
    assert read(good, Experiment) == parse(SHORT, Experiment)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"note: a\n# caf\xe9\n")
    for path, says in [
        (tmp_path / "g2p.yml", "no such file; did you mean 'g2p.yaml'?"),
        (tmp_path / "none" / "x.yaml", "no such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (latin, "not UTF-8; save the file as UTF-8"),
    ]:
        with pytest.raises(Problem) as caught:
            read(path, Experiment)
        line = ":2" if path == latin else ""
        assert str(caught.value) == f"{path}{line}: {says}"


def test_a_part_defined_after_the_slot_was_used_is_seen() -> None:
    assert "no such choice 'ter'" in mistake(SHORT + "metrics: [ter]")

    class Ter(Metric):
        """Edits."""

        kind: Literal["ter"] = "ter"

    try:
        assert parse(SHORT + "metrics: [ter]", Experiment).metrics == (Ter(),)
        assert Experiment.model_validate(
            {"data": Data(training=(Path("x"),), language="x"), "metrics": ["ter"]}
        )
        assert "ter" in json.dumps(schema(Experiment))
        again = type("Ter", (Metric,), {"__annotations__": {"kind": Literal["ter"]}, "kind": "ter",
                     "__module__": Ter.__module__, "__qualname__": Ter.__qualname__})  # fmt: skip
        assert Metric.choices()["ter"] is again
        stranger = type("Other", (Metric,), {"__annotations__": {"kind": Literal["ter"]}})
        with pytest.raises(TypeError, match="both of kind 'ter'"):
            Metric.choices()
        del stranger
    finally:
        for part in Metric.__subclasses__():
            if part not in (Bleu, Chrf):
                part.__bases__ = (Blueprint,)


def test_dump_explains_every_key() -> None:
    text = dump(parse(FULL, Experiment))
    assert text.startswith("data:  # What to learn from.\n  training: [train.tsv] ")
    assert '  language: "no"         # Language of the target.\n' in text
    assert "  kind: transformer  # (recurrent, transformer, stack)\n" in text
    assert "  activation: swish  # What bends the hidden layer. (relu, gelu, swish)\n" in text
    assert "\n  - bleu        # (bleu, chrf)\n  - kind: chrf" in text
    assert (
        "  # Label smoothing, the share of probability that is spread over all the other symbols.\n"
        "  smoothing: 0.0\n" in text
    )
    assert all(len(line) <= 100 for line in text.split("\n"))
    assert "#" not in dump(parse(FULL, Experiment), comments=False)


notes = st.text(st.characters(exclude_categories=["Cs"]))
metrics_ = st.lists(
    st.just(Bleu()) | st.builds(Chrf, beta=st.floats(0, exclude_min=True, allow_infinity=False))
)
encoders = st.recursive(
    st.builds(Recurrent, layers=st.integers(1, 12))
    | st.builds(Transformer, score=st.just(Additive())),
    lambda inner: st.builds(Stack, members=st.lists(inner).map(tuple)),
    max_leaves=5,
)


@given(notes, notes, metrics_, encoders, st.booleans())
def test_what_is_dumped_reads_back_equal(
    note: str, name: str, metrics: list[Metric], encoder: Encoder, comments: bool
) -> None:
    experiment = Experiment(
        data=Data(training=(Path("x"),), language=note),
        encoder=encoder,
        metrics=tuple(metrics),
        weights={name: 0.5},
        note=note,
    )
    assert parse(dump(experiment, comments), Experiment) == experiment


def test_the_schema_knows_slots_and_their_bare_kinds() -> None:
    tree = schema(Experiment)
    definitions = tree["$defs"]
    references = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(tree))
    assert set(references) <= set(definitions)
    assert tree["$ref"] == "#/$defs/Experiment"
    slot = definitions[definitions["Experiment"]["properties"]["encoder"]["$ref"].split("/")[-1]]
    bare, *parts = slot["anyOf"]
    assert bare == {"enum": ["recurrent", "transformer"]}  # a stack needs its members
    assert {part["$ref"] for part in parts} == {
        f"#/$defs/{name}" for name in ("Recurrent", "Transformer", "Stack")
    }
    assert all(part["required"] == ["kind"] for part in parts)
    width = definitions["Transformer"]["properties"]["width"]
    assert (width["description"], width["minimum"]) == ("Width of every layer.", 8)


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, transduce.blueprint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
