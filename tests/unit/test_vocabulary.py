from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.problem import Problem
from transduce.text.vocabulary import BOS, BYTES, EOS, SPECIALS, UNK, Vocabulary

piece = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1)
pieces = st.lists(piece.filter(lambda text: text not in SPECIALS), unique=True, max_size=20)


@given(pieces)
def test_numbers_and_pieces_are_one_to_one(known: list[str]) -> None:
    vocabulary = Vocabulary(known)
    ids = vocabulary.ids(known)
    assert ids == list(range(3, len(known) + 3))
    assert vocabulary.pieces(ids) == known
    assert list(vocabulary) == [*SPECIALS, *known]


@given(pieces)
def test_the_file_gives_the_same_vocabulary(known: list[str]) -> None:
    content = Vocabulary(known).to_bytes()
    assert list(Vocabulary.from_bytes(content, "v")) == [*SPECIALS, *known]
    assert Vocabulary.from_bytes(content, "v").to_bytes() == content


def test_specials_come_first_and_text_cannot_spell_them() -> None:
    vocabulary = Vocabulary(["a"])
    assert vocabulary.pieces([UNK, BOS, EOS, 3]) == [*SPECIALS, "a"]
    assert vocabulary.ids([*SPECIALS, "zzz", "a"]) == [UNK] * 4 + [3]
    assert "</s>" not in vocabulary


def test_a_vocabulary_that_holds_all_bytes_can_spell() -> None:
    assert Vocabulary(BYTES).spells
    assert not Vocabulary(BYTES[:-1]).spells


@pytest.mark.parametrize("bad", [["a", "a"], ["<s>"], [""], ["a\nb"]])
def test_a_piece_that_could_not_be_told_apart_is_refused(bad: list[str]) -> None:
    with pytest.raises(ValueError, match="piece"):
        Vocabulary(bad)


@pytest.mark.parametrize("content", [b"", b"a\nb\n", b"<unk>\n<s>\n</s>\na\na\n", b"\xff"])
def test_a_damaged_file_is_named(content: bytes) -> None:
    with pytest.raises(Problem, match=r"^source\.vocabulary: this is no vocabulary: .*; restore"):
        Vocabulary.from_bytes(content, "source.vocabulary")
