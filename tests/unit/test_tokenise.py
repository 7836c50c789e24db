from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from transduce.problem import Problem
from transduce.text.tokenise import (
    BytesBlueprint,
    CharactersBlueprint,
    SamplingBlueprint,
    SentencePieceBlueprint,
    SentencePieces,
    Tokeniser,
    TokeniserBlueprint,
    WordsBlueprint,
    read_spelling,
    spell,
)
from transduce.text.vocabulary import BYTES, SPECIALS

ENGLISH = ["the", "cat", "dog", "sees", "hears", "a", "small", "large", "old", "house", "tree"]
WORDS = [*ENGLISH, "ünder", "überall", "猫", "и"]
LINES = [" ".join(random.Random(n).choices(WORDS, k=8)) for n in range(300)]

ALL: dict[str, TokeniserBlueprint] = {
    "words": WordsBlueprint(),
    "spelt words": WordsBlueprint(size=265, byte_fallback=True),
    "characters": CharactersBlueprint(),
    "spelt characters": CharactersBlueprint(size=265, byte_fallback=True),
    "bytes": BytesBlueprint(),
    "unigram": SentencePieceBlueprint(size=285),
    "bpe": SentencePieceBlueprint(size=285, model="bpe"),
    "unigram without bytes": SentencePieceBlueprint(size=35, byte_fallback=False),
}
LEARNED: dict[str, Tokeniser] = {name: blueprint.learn(LINES) for name, blueprint in ALL.items()}
SPELLING = [name for name, tokeniser in LEARNED.items() if tokeniser.vocabulary.spells]

# SentencePiece reads U+2581 as a space: its own mark for one.
character = st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")
text = st.text(character) | st.lists(st.sampled_from([*WORDS, *SPECIALS, "<0x41>"])).map(" ".join)
tidy = text.map(lambda some: " ".join(some.split()))


@pytest.mark.parametrize("name", ALL)
@given(text=tidy)
def test_pieces_of_any_tidy_text_make_the_text_again(name: str, text: str) -> None:
    assert LEARNED[name].text(LEARNED[name].pieces(text)) == text


@pytest.mark.parametrize("name", [name for name in ALL if "words" not in name])
@given(text=text)
def test_all_but_words_keep_every_space(name: str, text: str) -> None:
    assert LEARNED[name].text(LEARNED[name].pieces(text)) == text


@pytest.mark.parametrize("name", SPELLING)
@given(text=text)
def test_with_bytes_nothing_is_unknown_and_nothing_special(name: str, text: str) -> None:
    ids = LEARNED[name].vocabulary.ids(LEARNED[name].pieces(text))
    assert all(id >= len(SPECIALS) for id in ids)


@pytest.mark.parametrize("name", ALL)
@given(text=text)
def test_no_text_spells_a_special(name: str, text: str) -> None:
    ids = LEARNED[name].vocabulary.ids(LEARNED[name].pieces(text))
    assert not {1, 2} & set(ids)


@pytest.mark.parametrize("name", ALL)
def test_learning_is_deterministic_and_loading_restores_it(name: str) -> None:
    content = LEARNED[name].to_bytes()
    assert ALL[name].learn(LINES).to_bytes() == content
    loaded = ALL[name].load(content, "file")
    assert list(loaded.vocabulary) == list(LEARNED[name].vocabulary)
    assert loaded.pieces(LINES[0] + " zebra") == LEARNED[name].pieces(LINES[0] + " zebra")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("content", [b"", b"rubbish\n", b"\xff" * 50])
def test_a_damaged_file_is_named(name: str, content: bytes) -> None:
    with pytest.raises(Problem, match=r"^x\.model: this is n.*; restore the file"):
        ALL[name].load(content, "x.model")


@pytest.mark.parametrize("name", [name for name in ALL if name != "bytes"])
def test_nothing_to_learn_from_is_a_problem(name: str) -> None:
    with pytest.raises(Problem, match="there is no text"):
        ALL[name].learn(["", ""])


@given(st.binary())
def test_any_bytes_read_as_some_text(content: bytes) -> None:
    assert read_spelling([BYTES[value] for value in content]) == (
        [content.decode(errors="replace")] if content else []
    )


def test_words_are_spelt_with_the_spaces_between_them() -> None:
    tokeniser = WordsBlueprint(byte_fallback=True).learn(["a b"])
    assert tokeniser.pieces("a é é b") == ["a", *spell("é é"), "b"]
    assert tokeniser.pieces("<0x41>") == spell("<0x41>")


def test_frequent_units_come_first_and_rare_ones_stay_out() -> None:
    lines = ["b b b a a c", "c d"]
    assert list(WordsBlueprint().learn(lines).vocabulary)[3:] == ["b", "a", "c", "d"]
    assert list(WordsBlueprint(min_count=2).learn(lines).vocabulary)[3:] == ["b", "a", "c"]
    assert list(WordsBlueprint(size=5).learn(lines).vocabulary)[3:] == ["b", "a"]
    assert list(CharactersBlueprint(size=5).learn(lines).vocabulary)[3:] == [" ", "b"]


def test_a_line_break_is_a_character() -> None:
    tokeniser = CharactersBlueprint().learn(["a\nb"])
    assert tokeniser.vocabulary.ids(tokeniser.pieces("b\na")) == [5, 3, 4]
    assert tokeniser.text(tokeniser.pieces("b\na")) == "b\na"


def test_a_size_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(ValidationError, match="259 has no room beside all bytes; 260 is the least"):
        WordsBlueprint(size=259, byte_fallback=True)


def test_sentencepiece_numbers_symbols_as_we_do() -> None:
    for name in ("unigram", "bpe"):
        tokeniser = LEARNED[name]
        assert isinstance(tokeniser, SentencePieces)
        assert len(tokeniser.vocabulary) == 285
        processor = tokeniser._processor
        assert [processor.unk_id(), processor.bos_id(), processor.eos_id()] == [0, 1, 2]
        assert processor.pad_id() == -1
        ids = tokeniser.vocabulary.ids(tokeniser.pieces("the cat 犬"))
        assert ids == processor.encode("the cat 犬")


def test_a_size_that_the_text_cannot_fill_is_lowered_with_a_warning() -> None:
    for model in ("unigram", "bpe"):
        blueprint = SentencePieceBlueprint.model_validate({"model": model, "size": 30_000})
        with pytest.warns(UserWarning, match=r"the text has \d+ pieces, not the 30000 wanted"):
            made = blueprint.learn(LINES)
        assert 259 < len(made.vocabulary) < 1000


def test_a_size_too_small_for_the_characters_is_a_problem() -> None:
    with pytest.raises(Problem, match=r"20 pieces are too few for this text; ask for \d+ at least"):
        SentencePieceBlueprint(size=20).learn(LINES)


def test_learning_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SentencePieceBlueprint(size=280).learn([*LINES, "odd\tline\nhere\0", "x" * 5_000])
    assert capfd.readouterr() == ("", "")


def test_long_lines_are_learned_from() -> None:
    learned = SentencePieceBlueprint(size=283).learn([*LINES, "qq " * 5_000])
    assert any("q" in piece for piece in learned.vocabulary)


def test_a_sample_of_the_lines_is_always_the_same() -> None:
    some = SentencePieceBlueprint(size=279, sample=50)
    assert some.learn(iter(LINES)).to_bytes() == some.learn(LINES).to_bytes()
    assert some.learn(LINES).to_bytes() != some.learn(LINES[:50]).to_bytes()
    assert SentencePieceBlueprint(size=285, sample=300).learn(LINES).to_bytes() == (
        LEARNED["unigram"].to_bytes()
    )


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_draws_are_a_function_of_text_and_seed(model: str) -> None:
    blueprint = SentencePieceBlueprint.model_validate({"model": model, "size": 285}).model_copy(
        update={"sampling": SamplingBlueprint(variants=4, alpha=0.3)}
    )
    tokeniser = blueprint.learn(LINES)
    first = [tokeniser.alternatives(line, 4, seed=1) for line in LINES[:20]]
    again = [tokeniser.alternatives(line, 4, seed=1) for line in reversed(LINES[:20])]
    other = [tokeniser.alternatives(line, 4, seed=2) for line in LINES[:20]]
    assert first == again[::-1]
    assert first != other
    assert len({tuple(way) for ways in first for way in ways}) > 20
    for line, ways in zip(LINES, first, strict=False):
        assert ways[0] == tokeniser.pieces(line)
        assert {tokeniser.text(way) for way in ways} == {line}


def test_one_way_only_is_repeated() -> None:
    assert LEARNED["words"].alternatives("a cat", 3, seed=0) == [["a", "cat"]] * 3
    best = LEARNED["unigram"].pieces("a cat")
    assert LEARNED["unigram"].alternatives("a cat", 3, seed=0) == [best] * 3
