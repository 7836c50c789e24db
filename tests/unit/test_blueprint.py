"""Configuration: what is read, what is refused, and how well the refusal helps."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from transduce.blueprint import Blueprint, Part, dump, parse, read, schema, yaml12
from transduce.problem import Problem


class Score(Part):
    """How a query and a key are compared."""


class Additive(Score):
    """One hidden layer (Bahdanau 2015)."""

    kind: Literal["additive"] = "additive"


class Scaled(Score):
    """Inner product."""

    kind: Literal["scaled_dot"] = "scaled_dot"
    temperature: float = Field(1.0, gt=0)
    """Divisor of the scores."""


class Encoder(Part):
    """What reads the source."""


class Recurrent(Encoder):
    """Runs over the source in both directions."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru"] = "lstm"
    """Which recurrent cell."""
    layers: int = Field(2, ge=1, le=12)
    """How many on top of each other."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of values set to zero."""
    bidirectional: bool = True
    """Whether to read backwards, too."""


class Transformer(Encoder):
    """Attends to itself."""

    kind: Literal["transformer"] = "transformer"
    width: int = Field(256, ge=8, multiple_of=8)
    """Width of every layer."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    activation: Literal["relu", "gelu", "swish"] = "relu"
    """What bends the hidden layer."""
    score: Score = Scaled()
    """How a query and a key are compared."""

    @model_validator(mode="after")
    def heads_divide_width(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide width {self.width}; change one")
        return self


class Stack(Encoder):
    """Encoders one after another: a part that holds parts of its own slot."""

    kind: Literal["stack"] = "stack"
    members: tuple[Encoder, ...]
    """The encoders, first to last."""


class Metric(Part):
    """How output is measured."""


class Bleu(Metric):
    """Overlap of word sequences."""

    kind: Literal["bleu"] = "bleu"


class Chrf(Metric):
    """Overlap of letter sequences."""

    kind: Literal["chrf"] = "chrf"
    beta: float = Field(2.0, gt=0)
    """Weight of recall."""


class Data(Blueprint):
    """Where examples come from."""

    training: tuple[Path, ...] = Field(min_length=1)
    """Training files."""
    language: str
    """Language of the target."""
    normalisation: Literal["none", "nfc", "nfkc"] = "nfc"
    """Unicode form."""
    limits: tuple[int, int] = (1, 200)
    """Fewest and most tokens of an example."""


class Training(Blueprint):
    """How the model is trained."""

    steps: int = Field(10_000, ge=1)
    """Updates."""
    learning_rate: float = Field(5e-4, gt=0)
    """At its highest."""
    patience: int | Literal["forever"] = 5
    """Validations without gain before training ends."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Number format; null chooses by device."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing, the share of probability that is spread over all the other symbols."""


class Experiment(Blueprint):
    """A whole experiment."""

    data: Data
    """What to learn from."""
    encoder: Encoder = Transformer()
    """What reads the source."""
    training: Training = Training()
    metrics: tuple[Metric, ...] = (Bleu(),)
    """How output is measured."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """Weight of each corpus."""
    note: str = ""
    """Anything."""


FULL = """\
data:
  training: [train.tsv]
  language: no
  normalisation: nfkc
  limits: [1, 100]
encoder:
  kind: transformer
  width: 128
  heads: 8
  activation: swish
  score: {kind: scaled_dot, temperature: 2}
training:
  steps: 500
  learning_rate: 1e-3
  patience: forever
  precision: bfloat16
  smoothing: 0
metrics:
- bleu
- kind: chrf
  beta: 3
weights: {news: 2}
note: 1:30
"""
SHORT = "data: {training: [a], language: de}\n"


def mistakes(text: str, *overrides: str) -> list[str]:
    with pytest.raises(Problem) as caught:
        parse(text, Experiment, "g2p.yaml", overrides)
    return str(caught.value).split("\n")


def mistake(text: str, *overrides: str) -> str:
    (only,) = mistakes(text, *overrides)
    return only


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
    ("text", "value"),
    [
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("1e-3", 1e-3), ("1:30", "1:30"), ("010", 10),
        ("0o10", 8), ("0x1F", 31), ("1_000", "1_000"), ("-.5", -0.5), ("3.", 3.0), ("+1", 1),
        ("~", None), ("", None), ("null", None), ("TRUE", True), ("tRue", "tRue"), ("e3", "e3"),
        ("2001-12-14", "2001-12-14"), ("=", "="), ("'3'", "3"), (".", "."),
        ('"\\u00e9"', "é"), ('"\\ud83d\\ude00"', "😀"),
        ("|\n  x\n  y", "x\ny"), (">\n  x\n  y", "x y"), ("[a, [1, ~]]", ["a", [1, None]]),
    ],
)  # fmt: skip
def test_yaml_is_the_core_schema_of_1_2(text: str, value: object) -> None:
    found = yaml12.load(f"key: {text}", "x").data
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a: given before, at x.yaml:1"),
        ("a: {b: 1,\n b: 2}", 2, "a.b: given before, at x.yaml:1"),
        ("a:\n\tb: 1", 2, "a tab; use spaces"),
        ("a: 1\nb:\t2", 2, "a tab; use spaces"),
        ("a: &anchor 1", 1, "anchors (&)"),
        ("a: 1\nb: *anchor", 2, "aliases (*)"),
        ("a: 1\n<<: {b: 2}", 2, "merge keys"),
        ("a: !!int 3", 1, "tags"),
        ("a: !python/object:os.system {}", 1, "tags"),
        ("%YAML 1.1\n---\na: no", 2, "always YAML 1.2"),
        ("a: 1\n---\nb: 2", 3, "second document"),
        ("a: [1,\n 2\nb: 3", 3, "the [ of line 1"),
        ("a: 'x\nb: 3\n", 3, "the ' of line 1 is not closed"),
        ("a: 1\nb: c: d", 2, "quote text that holds ': '"),
        ("a: @x", 1, "cannot start with @; put it in quotes"),
        ("a: 1\n  b: 2", 2, "indent keys of one mapping alike"),
        ("- a\nb: 1", 2, "indent"),
        ("a: 1\nb: x\u2028y", 2, r'U+2028 must not stand here; write "\u2028"'),
        ("a: 1\nb: \x07", 2, "U+0007"),
        ('a: "\\ud800"', 1, "surrogate"),
        ("? [a]\n: 3", 1, "a key must be one word"),
        ("a: " + "9" * 5000, 1, "too many digits"),
        ("a:\n  " + "[" * 60 + "]" * 60, 2, "deep"),
    ],
)
def test_what_surprises_is_refused(text: str, line: int, says: str) -> None:
    with pytest.raises(Problem) as caught:
        yaml12.load(text, "x.yaml")
    assert str(caught.value).startswith(f"x.yaml:{line}: ")
    assert says in str(caught.value)


MISTAKES = """
zzz: {}
! 3: zzz: no such key; choose from (data, encoder, training, metrics, weights, note)

encodr: {}
! 3: encodr: no such key; did you mean 'encoder'?

steps: 3
! 3: steps: no such key; it belongs in training

beta: 3
! 3: beta: no such key; it belongs in metrics of kind chrf

encoder:
  kind: recurrent
  heads: 3
! 5: encoder.heads: no such key; it belongs in encoder of kind transformer

encoder: transfomer
! 3: encoder: no such choice 'transfomer'; did you mean 'transformer'?
! (recurrent, transformer, stack)

encoder:
  width: 8
  kind: transfomer
! 5: encoder.kind: no such choice 'transfomer'; did you mean 'transformer'?
! (recurrent, transformer, stack)

encoder:
  width: 8
  knid: transformer
! 5: encoder.knid: no such key; did you mean 'kind'?

encoder: {width: 8}
! 3: encoder.kind: this key is missing; choose (recurrent, transformer, stack)

encoder: {kind: 3}
! 3: encoder.kind: expected one of (recurrent, transformer, stack), found 3

encoder: 3
! 3: encoder: expected one of (recurrent, transformer, stack), found 3

encoder: stack
! 3: encoder.members: this key is missing; give it a list
! (each one of (recurrent, transformer, stack))

encoder: {kind: stack, members: [recurrent, {kind: stack,
  members: [gru]}]}
! 4: encoder.members.1.members.0: no such choice 'gru'; (recurrent, transformer, stack)

training: {steps: '3'}
! 3: training.steps: expected a whole number >= 1, found '3'; write 3 without quotes

training: {steps: 1_000}
! 3: training.steps: expected a whole number >= 1, found '1_000'; write 1000 without quotes

training: {steps: 1e4}
! 3: training.steps: expected a whole number >= 1, found 10000.0; write 10000

training: {steps: true}
! 3: training.steps: expected a whole number >= 1, found true

training: {steps: 0}
! 3: training.steps: expected a whole number >= 1, found 0

training:
  steps:
! 4: training.steps: expected a whole number >= 1, found null

training: {smoothing: 1}
! 3: training.smoothing: expected a number >= 0 and < 1, found 1

training: {smoothing: .nan}
! 3: training.smoothing: expected a number >= 0 and < 1, found .nan; it must be finite

training: {learning_rate: 1e999}
! 3: training.learning_rate: expected a number > 0, found .inf; it must be finite

training: {patience: forevr}
! 3: training.patience: expected a whole number or forever, found 'forevr';
! did you mean 'forever'?

training: {precision: bfloat}
! 3: training.precision: expected one of (float32, bfloat16) or null, found 'bfloat';
! did you mean 'bfloat16'?

encoder: {kind: recurrent, bidirectional: yes}
! 3: encoder.bidirectional: expected true or false, found 'yes'; write true

encoder: {kind: recurrent, cell: no}
! 3: encoder.cell: no such choice 'no'; (lstm, gru)

encoder: {kind: transformer, heads: 3}
! 3: encoder: 3 heads do not divide width 256; change one

metrics: bleu
! 3: metrics: expected a list (each one of (bleu, chrf)), found 'bleu'; write [bleu]

metrics: [bleu,
  chfr]
! 4: metrics.1: no such choice 'chfr'; did you mean 'chrf'? (bleu, chrf)

weights: {a: 0}
! 3: weights.a: expected a number > 0, found 0

weights: [3]
! 3: weights: expected a mapping of names to a number > 0, found a list of 1

note: 3
! 3: note: expected text, found 3; write it in quotes: "3"
"""

DATA_MISTAKES = """
note: x
! 1: data: this key is missing; give it a mapping with training, language

data: {}
! 2: data: these keys are missing: training, language

- 1
! 1: expected a mapping with data, found a list of 1

data:1
! 1: expected a mapping with data, found 'data:1'; a colon needs a space behind it

data: {training: [], language: de}
! 2: data.training: expected a list of at least 1 (each a path), found a list of 0

data: {training: a, language: de}
! 2: data.training: expected a list of at least 1 (each a path), found 'a'; write [a]

data: {training: [3], language: de}
! 2: data.training.0: expected a path, found 3

data: {training: [a], language: de, limits: [1, 2, 3]}
! 2: data.limits: expected a list of 2 (a whole number, a whole number), found a list of 3

data: {training: [a], language: de, limits: [1]}
! 2: data.limits: expected a list of 2 (a whole number, a whole number), found a list of 1
"""


def cases(text: str) -> list[tuple[str, str]]:
    """Split blocks of YAML, each with the expected message behind exclamation marks."""
    blocks = [block.partition("\n! ") for block in text.strip().split("\n\n")]
    return [(yaml, message.replace("\n!", "")) for yaml, _, message in blocks]


@pytest.mark.parametrize(
    ("text", "message"),
    [(f"{SHORT}\n{yaml}", message) for yaml, message in cases(MISTAKES)]
    + [(f"\n{yaml}", message) for yaml, message in cases(DATA_MISTAKES)],
)
def test_a_mistake_is_one_line_that_says_what_to_do(text: str, message: str) -> None:
    assert mistake(text) == f"g2p.yaml:{message}"


def test_several_mistakes_are_shown_in_the_order_of_the_file() -> None:
    text = (
        "training:\n  stepz: 3\n  patience: x\n"
        "data:\n  languag: de\n  training: a\nmetrics: 3\nweights: 3\nnote: 3\n"
    )
    found = mistakes(text)
    assert [re.sub(r"; .*|, found.*", "", line) for line in found] == [
        "g2p.yaml:2: training.stepz: no such key",
        "g2p.yaml:3: training.patience: expected a whole number or forever",
        "g2p.yaml:5: data.languag: no such key",  # and not that language is missing, too
        "g2p.yaml:6: data.training: expected a list of at least 1 (each a path)",
        "g2p.yaml:7: metrics: expected a list (each one of (bleu, chrf))",
        "and 2 more",
    ]


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


@pytest.mark.parametrize(
    ("override", "says"),
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
        ("steps", "expected key=value, such as train.steps=1000"),
        ("a..b=3", "expected key=value, such as train.steps=1000"),
        (
            "note=\udcff",
            r'the character U+DCFF must not stand here; write "\uDCFF" in double quotes',
        ),
    ],
)
def test_a_mistake_in_an_override_names_the_override(override: str, says: str) -> None:
    assert mistake(SHORT, override) == f"{override}: {says}"


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


class Mutation(NamedTuple):
    """One word of a file, misspelt."""

    text: str
    word: str
    place: str


def misspellings(word: str, chance: random.Random) -> Iterator[str]:
    letters = "abcdefghijklmnopqrstuvwxyz_"
    for at in chance.sample(range(len(word) - 1), 2):
        yield word[:at] + word[at + 1 :]
        yield word[:at] + chance.choice(letters) + word[at:]
        yield word[:at] + chance.choice(letters) + word[at + 1 :]
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def mutations(text: str, words: set[str]) -> Iterator[Mutation]:
    """Misspell every key, literal and kind of a file: drop, add, change and swap letters."""
    chance = random.Random(1)
    lines, above = text.split("\n"), [("", -1)]
    for number, line in enumerate(lines):
        if not (entry := re.fullmatch(r"( *)(\w+):(?: (\w+))?", line)):
            continue
        depth = len(entry[1])
        above = [(key, at) for key, at in above if at < depth]
        around = "".join(f"{key}." for key, _ in above[1:])
        for word in {entry[2], entry[3]} & words:
            for wrong in misspellings(word, chance):
                if wrong and wrong not in words:
                    changed = line.replace(word, wrong, 1)
                    key = wrong if word == entry[2] else entry[2]
                    where = f"g2p.yaml:{number + 1}: {around}{key}: "
                    yield Mutation(
                        "\n".join([*lines[:number], changed, *lines[number + 1 :]]), word, where
                    )
        above.append((entry[2], depth))


def words_of(kind: type[Blueprint]) -> set[str]:
    text = json.dumps(schema(kind))
    tree = json.loads(text)["$defs"].values()
    keys = {key for part in tree for key in part.get("properties", {})}
    values = re.findall(r'"(?:const)": "(\w+)"', text)
    literals = [
        w for found in re.findall(r'"enum": \[([^\]]*)\]', text) for w in re.findall(r"\w+", found)
    ]
    return keys | set(values) | set(literals)


def judge(text: str, kind: type[Blueprint]) -> tuple[int, list[str]]:
    """Return how many misspellings were tried and the messages without the right suggestion."""
    count, bad = 0, []
    for changed, word, where in mutations(text, words_of(kind)):
        count += 1
        with pytest.raises(Problem) as caught:
            parse(changed, kind, "g2p.yaml")
        first = str(caught.value).split("\n")[0]
        assert first.startswith(where), (first, where)
        if f"did you mean {word!r}?" not in first:
            bad.append(f"{word}: {first}")
    return count, bad


def test_misspelt_words_get_the_right_suggestion() -> None:
    blocks = dump(parse(FULL, Experiment), comments=False)
    other = dump(parse(SHORT + "encoder: recurrent", Experiment), comments=False)
    count, bad = 0, []
    for text in (blocks, other):
        tried, missed = judge(text, Experiment)
        count += tried
        bad += missed
    assert count >= 200
    assert len(bad) <= 0.05 * count, "\n".join(bad)
