from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from transduce.problem import Problem
from transduce.text.codec import CodecBlueprint, TextBlueprint, TextCodec, learn_codecs

LINES = ["the cat sees a dog", "a dog hears the cat", "Über the house"]
KINDS: list[dict[str, object]] = [
    {"kind": "words"},
    {"kind": "characters", "byte_fallback": True},
    {"kind": "bytes"},
    {"kind": "sentencepiece", "size": 278, "sampling": {"variants": 3}},
]
SHOWN = [*KINDS, {"kind": "words", "byte_fallback": True}]


@cache
def learned(tokens: str) -> TextCodec:
    return codec(next(kind for kind in SHOWN if str(kind) == tokens))


def codec(tokens: dict[str, object], **normalise: object) -> TextCodec:
    blueprint = CodecBlueprint.model_validate({"tokens": tokens, "normalise": normalise})
    return TextCodec.learn(blueprint, LINES)


@pytest.mark.parametrize("tokens", KINDS, ids=str)
def test_a_codec_kept_in_files_is_the_same_codec(tokens: dict[str, object], tmp_path: Path) -> None:
    made = codec(tokens, lower=True)
    paths = made.save(tmp_path, "source")
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    loaded = TextCodec.load(tmp_path, "source")
    assert loaded.blueprint == made.blueprint
    assert loaded.fingerprint == made.fingerprint
    assert loaded.encode("The cat Ü") == made.encode("The cat Ü")
    assert loaded.alternatives("the cat", 3, 7) == made.alternatives("the cat", 3, 7)
    assert loaded.variants == (3 if tokens["kind"] == "sentencepiece" else 1)


@pytest.mark.parametrize("tokens", KINDS, ids=str)
def test_text_is_normalised_encoded_and_decoded(tokens: dict[str, object]) -> None:
    made = codec(tokens)
    ids = made.encode("  the\tcat sees  U\u0308ber ")
    assert made.decode([1, *ids, 2]) == ("the cat sees Über")
    assert all(2 < id < made.size for id in made.encode("the cat"))


@pytest.mark.parametrize("tokens", SHOWN, ids=str)
@given(data=st.data())
def test_text_that_comes_bit_by_bit_is_the_text(tokens: dict[str, object], data: Any) -> None:
    made = learned(str(tokens))
    spelt = st.text(max_size=3).filter(lambda text: text.isprintable()).map(made.encode)
    noise = st.lists(st.integers(0, made.size - 1), max_size=3)
    parts = data.draw(st.lists(st.one_of(spelt, noise), max_size=8))
    ids = [id for part in parts for id in part]
    whole = made.decode(ids)
    for cut in (parts, [[id] for id in ids]):
        assert "".join(made.unfold(cut)) == whole


def test_a_character_is_shown_when_all_its_bytes_have_come() -> None:
    for tokens in (KINDS[1], KINDS[2], KINDS[3]):
        made = codec(tokens)
        shown = list(made.unfold([[id] for id in made.encode("a €uro")]))
        assert "".join(shown) == "a €uro"
        assert any("€" in bit for bit in shown)
        assert not any("\ufffd" in bit for bit in shown)


def test_fingerprints_tell_settings_and_learning_apart() -> None:
    words = CodecBlueprint.model_validate({"tokens": {"kind": "words"}})
    lower = CodecBlueprint.model_validate(
        {"tokens": {"kind": "words"}, "normalise": {"lower": True}}
    )
    prints = {
        TextCodec.learn(words, ["a b"]).fingerprint,
        TextCodec.learn(words, ["a c"]).fingerprint,
        TextCodec.learn(lower, ["a b"]).fingerprint,
    }
    assert len(prints) == 3
    assert TextCodec.learn(words, ["a b"]).fingerprint in prints


def test_an_unknown_symbol_shows() -> None:
    assert codec({"kind": "words"}).decode(codec({"kind": "words"}).encode("the zebra")) == "the ⁇"
    characters = codec({"kind": "characters"})
    assert characters.decode(characters.encode("cat€")) == "cat⁇"
    assert characters.pieces([0, 1, 2]) == ["<unk>", "<s>", "</s>"]


def test_a_joint_codec_is_one_object_that_knows_both_sides() -> None:
    blueprint = TextBlueprint.model_validate({"source": {"tokens": {"kind": "words"}}})
    apart = learn_codecs(blueprint, ["a b"], ["c"])
    assert (apart["source"].size, apart["target"].size) == (5, 4)
    joint = learn_codecs(blueprint.model_copy(update={"joint": True}), ["a b"], ["c"])
    assert joint["source"] is joint["target"]
    assert joint["source"].size == 6


def test_a_joint_codec_takes_no_target_settings() -> None:
    with pytest.raises(ValidationError, match="leave target out"):
        TextBlueprint.model_validate({"joint": True, "target": {"tokens": {"kind": "bytes"}}})


def test_each_side_may_have_its_own_settings() -> None:
    blueprint = TextBlueprint.model_validate(
        {"source": {"tokens": {"kind": "words"}}, "target": {"tokens": {"kind": "bytes"}}}
    )
    codecs = learn_codecs(blueprint, ["a b"], ["c"])
    assert (codecs["source"].size, codecs["target"].size) == (5, 259)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"source\.json: no such file"):
        TextCodec.load(tmp_path, "source")
    codec({"kind": "words"}).save(tmp_path, "source")
    (tmp_path / "source.vocabulary").write_bytes(b"x")
    with pytest.raises(Problem, match=r"source\.vocabulary: this is no vocabulary"):
        TextCodec.load(tmp_path, "source")
    (tmp_path / "source.vocabulary").unlink()
    with pytest.raises(Problem, match=r"source\.vocabulary: cannot be read: No such file"):
        TextCodec.load(tmp_path, "source")
    (tmp_path / "source.json").write_bytes(b'{"tokens": {"kind": "wrods"}}')
    with pytest.raises(Problem, match=r"source\.json:1: tokens.kind: no such choice 'wrods'"):
        TextCodec.load(tmp_path, "source")


def test_what_is_new_in_a_source_is_numbered_behind_the_vocabulary() -> None:
    made = codec({"kind": "words"}, lower=True)
    source = "The Zebra sees a Yak , the zebra sees </s> a gnu"
    known = made.reading(source, 3)
    zebra, yak, comma = made.size, made.size + 1, made.size + 2
    the, sees, a = made.encode("the sees a")
    unknown = 0
    assert known.encode(source) == [
        *(the, zebra, sees, a, yak, comma, the, zebra, sees, unknown, a, unknown)
    ]
    assert known.encode("yak gnu okapi") == [yak, unknown, unknown]
    assert known.alternatives("a yak", 2, 1) == [[a, yak]] * 2
    assert known.decode([1, yak, unknown, zebra, 2]) == "yak ⁇ zebra"
    assert known.pieces([the, comma]) == ["the", ","]
    assert known.size == made.size
    assert made.encode("yak") == [unknown], "the codec itself learns nothing"
    assert made.reading(source, 0) is made
    assert made.reading("zebra zebra", 3).encode("yak zebra") == [unknown, zebra]


def test_new_characters_are_known_as_well() -> None:
    made = codec({"kind": "characters"})
    known = made.reading("aξ ψξ", 5)
    assert known.encode("ψξω") == [made.size + 1, made.size, 0]
    assert known.decode(known.encode("ψ aξ")) == "ψ aξ"


@pytest.mark.parametrize("tokens", KINDS, ids=str)
def test_reserved_symbols_stand_behind_the_vocabulary(
    tokens: dict[str, object], tmp_path: Path
) -> None:
    blueprint = CodecBlueprint.model_validate({"tokens": tokens, "normalise": {"lower": True}})
    plain = TextCodec.learn(blueprint, LINES)
    tagged = [f"<2DE> {line}" for line in LINES]
    made = TextCodec.learn(blueprint, tagged, ["<2DE>", "<mask>", "<2DE>"])
    assert made.size == plain.size + 2
    assert made.encode("the cat") == plain.encode("the cat"), "no other number changes"
    tag, mask = plain.size, plain.size + 1
    ids = made.encode("<2DE> the  <mask> cat <mask>")
    assert ids == [tag, *plain.encode("the"), mask, *plain.encode("cat"), mask]
    assert made.decode([1, *ids, 2]) == "<2DE> the <mask> cat <mask>"
    assert made.encode(" <2DE>") == made.encode("<2DE>") == [tag]
    assert mask not in made.encode("a<mask> <mask>b <mask><mask>"), "a symbol is a word"
    assert made.alternatives("<2DE> the cat", 3, 0)[2][0] == tag
    assert len(made.texts()) == made.size
    assert (made.encode(""), made.decode([])) == ([], "")
    paths = made.save(tmp_path, "source")
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    loaded = TextCodec.load(tmp_path, "source")
    assert (loaded.reserved, loaded.fingerprint) == (made.reserved, made.fingerprint)
    assert plain.fingerprint != made.fingerprint


def test_reserved_symbols_are_known_to_the_source_and_never_new() -> None:
    blueprint = TextBlueprint.model_validate(
        {"source": {"tokens": "words"}, "reserved": ["<2de>"], "target": {"tokens": "words"}}
    )
    codecs = learn_codecs(blueprint, LINES, LINES, ["<BT>"])
    assert codecs["source"].reserved == ("<2de>", "<BT>")
    assert codecs["target"].reserved == ()
    assert codecs["source"].reading("<BT> xyz a", 5).new == ("xyz",)


@pytest.mark.parametrize("name", ["<s>", "<0x0A>", "mask", "<a b>", "<>"])
def test_what_cannot_be_reserved_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TextBlueprint(reserved=(name,))
