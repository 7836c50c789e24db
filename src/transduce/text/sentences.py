"""Where the sentences of a document begin and end, in any script, so that nothing of it is lost."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from pydantic import PositiveInt

from transduce.blueprint import Part

# Characters of Unicode's property Sentence_Terminal. Behind those of the first line there has to be
# white space for a sentence to end, because they stand in 3.14, a.m. and wow!com as well.
SPACED: Final = ".!?\u203c\u203d\u2024\u2047\u2048\u2049"
UNSPACED: Final = (
    "\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u07f9\u0964\u0965\u104a\u104b\u1362\u1367"
    "\u1368\u166e\u17d4\u17d5\u1803\u1809\u1944\u1945\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876"
    "\ua877\ua8ce\ua8cf\uaaf0\uaaf1\uabeb\ufe12\ufe15\ufe16\ufe52\ufe56\ufe57\uff01\uff0e\uff1f"
    "\uff61"
)
LETTERS: Final = 50  # of a word that a full stop belongs to, at most
CLOSING: Final = "\"')]}»›\u2019\u201d\u3009\u300b\u300d\u300f\u3011\uff09\uff3d\uff5d\uff63"
SPACES: Final = re.compile(r"\s+")
CLAUSES: Final = re.compile(r"[,;:\u2013\u2014-]+\s+|[\u060c\u061b\u3001\uff0c\uff1a\uff1b]+\s*")
# The full stop of East Asia stands in its decimal numbers, too.
_END: Final = re.compile(rf"((?:[{SPACED}{UNSPACED}](?<!\uff0e(?=\d)))+)[{re.escape(CLOSING)}]*")
_LETTER: Final = re.compile(r"\w")
_LINE: Final = re.compile(r"[^\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
# Scripts that put no space between words or sentences: Han, kana, bopomofo, and their signs.
_DENSE: Final = re.compile(
    r"[\u2e80-\u312f\u31a0-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff9f"
    r"\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)


class Span(NamedTuple):
    """A sentence, or a piece of one that was too long: ``document[start:end]``."""

    start: int
    end: int
    whole: bool = True  # False: a piece
    tags: str = ""  # what is read before it, because its document begins so

    def read(self, document: str) -> str:
        """Return what a model reads of a document."""
        return self.tags + document[self.start : self.end]


class SplitBlueprint(Part):
    """Slot for how a document is cut into what a model reads at once."""

    longest: PositiveInt | None = None
    """symbols, the end included; a longer sentence is cut; null: as many as a model can read"""

    @abstractmethod
    def ends(self, line: str) -> Iterator[int]:
        """Yield where the sentences of a line end; its own end need not be said."""

    def spans(self, document: str, fits: Callable[[str], bool]) -> list[Span]:
        """Return the sentences in order; what lies between them is white space.

        A line break ends a sentence. One that does not fit is cut at clause marks, else at spaces,
        else between characters, into pieces of about the same size.
        """
        found: list[Span] = []
        for line in _LINE.finditer(document):
            ends = [*self.ends(line[0]), len(line[0])]
            for start, end in zip([0, *ends], ends, strict=False):
                if (text := line[0][start:end]).strip():
                    begin = line.start() + start + len(text) - len(text.lstrip())
                    whole = Span(begin, begin + len(text.strip()))
                    found.extend(_pieces(document, whole, fits))
        return found


class Sentences(SplitBlueprint):
    """Cuts behind marks that end sentences in all scripts (Unicode's Sentence_Terminal).

    In doubt it does not cut: behind . ! or ? without white space, before a small letter, and behind
    a full stop after one letter, a number of up to two digits, a word with a full stop inside, or
    one of the ``abbreviations``.
    """

    kind: Literal["sentences"] = "sentences"
    abbreviations: tuple[str, ...] = ("Dr", "Mr", "Mrs", "Ms", "Prof", "St", "vs")
    """words whose full stop ends no sentence"""

    def ends(self, line: str) -> Iterator[int]:
        """Yield where the sentences of a line end."""
        for mark in _END.finditer(line):
            place = mark.end()
            if not line[place : place + 1].isspace():
                if place == mark.end(1) and line[place - 1] in UNSPACED:
                    yield place
            elif not (_goes_on(line, place) or (mark[1] == "." and self._short(line, mark))):
                yield place

    def _short(self, line: str, stop: re.Match[str]) -> bool:
        """Whether a full stop belongs to the word that it stands behind."""
        before = line[max(0, stop.start() - LETTERS) : stop.start()]
        word = re.split(r"[^\w.]", before)[-1]
        number = word.isdigit() and len(word) < 3
        letter = len(word) == 1 and word.isalpha()
        return number or letter or "." in word or word in self.abbreviations


def _goes_on(line: str, place: int) -> bool:
    """Whether the next letter is a small one, as it is within a sentence."""
    first = _LETTER.search(line, place)
    return first is not None and first[0].islower()


def _pieces(document: str, span: Span, fits: Callable[[str], bool]) -> Iterator[Span]:
    """Cut a sentence until all of its pieces fit, near the middle each time."""
    start, end = span.start, span.end
    place = None if fits(document[start:end]) else _middle(document, start, end)
    if place is None:  # a single character that does not fit is the model's to refuse
        yield span
        return
    left = start + len(document[start:place].rstrip())
    right = end - len(document[place:end].lstrip())
    yield from _pieces(document, Span(start, left, False), fits)
    yield from _pieces(document, Span(right, end, False), fits)


def _middle(document: str, start: int, end: int) -> int | None:
    """Return where to cut: the best kind of place in the middle half, nearest to the middle."""
    text = document[start:end]
    apart = (p for p in range(1, len(text)) if _apart(text[p - 1], text[p]))
    kinds = (
        (mark.end() for mark in CLAUSES.finditer(text)),
        (x.end() for x in SPACES.finditer(text)),
    )
    for places, away in (*((kind, len(text) // 2) for kind in kinds), (apart, len(text))):
        near = [(abs(2 * place - len(text)), place) for place in places if place < len(text)]
        if near and min(near)[0] <= away:
            return start + min(near)[1]
    return None


def _apart(left: str, right: str) -> bool:
    """Whether two characters are not parts of one, such as a letter and its accent."""
    joins = "\u200d"
    return joins not in (left, right) and not unicodedata.category(right).startswith("M")


def between(gap: str, before: str, said: str) -> str:
    """Return what to put behind the answer to a sentence: what stood there, as the answer writes.

    ``before`` is the sentence that ``gap`` stood behind, ``said`` its answer. Line breaks stay, and
    so do spaces, but for a change to or from a script that writes none between sentences.
    """
    if not on_one_line(gap) or not said or _dense(before) == _dense(said):
        return gap
    return "" if _dense(said) else " "


def on_one_line(text: str) -> bool:
    """Whether a text has no line break."""
    return not _LINE.sub("", text)


def _dense(text: str) -> bool:
    return _DENSE.match(text.rstrip().rstrip(CLOSING)[-1:]) is not None
