"""Sentences are found in any script, and a document is all there behind them."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transduce.text.sentences import Sentences, between

SPLIT = Sentences()


def cut(text: str, longest: int = 1000) -> list[str]:
    spans = SPLIT.spans(text, lambda piece: len(piece) <= longest)
    return [text[span.start : span.end] for span in spans]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Hello world.", "How are you?", 'He said "Go!" and left.', "So what?!", "Yes."],
        ["Dr. Smith paid 3.14 on the 3. Mai in the U.S. Army.", "J. Doe saw it, e.g. at wow!com."],
        ["He said: “It is late.”", "(They left.)", "«Vraiment ?»", "¿Qué?", "Да.", "Нет."],
        ["Is it?", "No... it is not… no.", "It was 1999.", "End"],
        ["नमस्ते।", "कैसे हो?", "هل هذا؟", "نعم.", "یہ ہے۔", "ሰላም።", "እንዴት?"],
    ],
)
@pytest.mark.parametrize("gap", [" ", "  ", "\n", "\r\n\n", "\t"])
def test_sentences_end_where_their_marks_do(sentences: list[str], gap: str) -> None:
    assert cut(gap.join(sentences)) == sentences
    assert cut(f" {gap.join(sentences)}\n") == sentences


def test_scripts_without_spaces() -> None:
    sentences = [
        "你好。",
        "真的吗？！",
        "“走吧。”他说。",
        "今年是2020年。",
        "3月",
        "３．１４です．",
        "次。",
    ]
    assert cut("".join(sentences[:5])) == sentences[:5]
    assert cut("".join(sentences[5:])) == sentences[5:]


def test_abbreviations_are_a_setting() -> None:
    text = "Siehe Abs. Drei. Gut."
    assert cut(text) == ["Siehe Abs.", "Drei.", "Gut."]
    spans = Sentences(abbreviations=("Abs",)).spans(text, lambda _: True)
    assert [text[span.start : span.end] for span in spans] == ["Siehe Abs. Drei.", "Gut."]


def test_what_is_too_long_is_cut_at_clauses_then_spaces_then_characters() -> None:
    text = "This is rather long, which has clauses; and words, and so on. No."
    assert cut(text, 50) == [
        "This is rather long,",
        "which has clauses; and words, and so on.",
        "No.",
    ]
    assert cut("one two three four five", 12) == ["one two", "three", "four five"]
    assert cut("長い文章、とても長い文章", 8) == ["長い文章、", "とても長い文章"]
    assert cut("abcdefg", 3) == ["abc", "de", "fg"]
    accents = "e\u0301" * 4
    assert cut(accents, 2) == ["e\u0301"] * 4
    assert cut(accents, 1) == ["e\u0301"] * 4, "what cannot be cut stays, for the model to refuse"
    whole = [span.whole for span in SPLIT.spans(text, lambda piece: len(piece) <= 50)]
    assert whole == [False, False, True]


TEXTS = st.text(
    st.sampled_from("ab é\u0301Z1.!?,;\"')。！、，」中\n\r\t\u3000\u2028\u200d"), max_size=60
)


@given(TEXTS, st.integers(1, 12))
def test_nothing_is_lost(text: str, longest: int) -> None:
    spans = SPLIT.spans(text, lambda piece: len(piece) <= longest)
    edges = [0, *(place for span in spans for place in span[:2]), len(text)]
    assert edges == sorted(edges)
    parts = [text[left:right] for left, right in pairwise(edges)]
    assert "".join(parts) == text
    assert not any(gap.strip() for gap in parts[::2])
    for piece, span in zip(parts[1::2], spans, strict=True):
        assert piece == piece.strip() != ""
        assert not set("\n\r\u2028") & set(piece)
        if len(piece) > longest:
            assert all(
                "\u200d" in pair or unicodedata.category(pair[1]).startswith("M")
                for pair in pairwise(piece)
            )
        assert span.whole or len(text) > longest


@pytest.mark.parametrize(
    ("gap", "before", "said", "wanted"),
    [
        (" ", "Go.", "Geh.", " "),
        ("  ", "Go.", "走。", ""),
        ("", "走。", "Go.", " "),
        ("", "走。", "行く。」", ""),
        (" ", "走。", "行く。", " "),
        ("\u3000", "走！", "Go!", " "),
        ("\n\n", "走。", "Go.", "\n\n"),
        (" ", "가자.", "Go.", " "),
        (" ", "Go.", "", " "),
        ("", "an end", "ein Ende", ""),
    ],
)
def test_spaces_follow_the_script(gap: str, before: str, said: str, wanted: str) -> None:
    assert between(gap, before, said) == wanted
