"""One spelling for every text, before it is cut into pieces."""

from __future__ import annotations

import unicodedata
from typing import Literal

from transduce.blueprint import Blueprint
from transduce.problem import Problem


class NormaliserBlueprint(Blueprint):
    """How texts are made alike; it is also the normaliser itself, a function from text to text.

    Applying it twice is applying it once.
    """

    unicode: Literal["nfc", "nfkc", "nfd", "none"] = "nfc"
    """the Unicode normal form; nfkc also replaces ligatures, full-width letters and the like; nfd
    takes letters from their marks and Korean syllables apart, which sources of few words gain by"""
    lower: bool = False
    """write everything in lower case"""
    whitespace: bool = True
    """make one space of every run of white space, and none at the ends"""

    def __call__(self, text: str) -> str:
        """Return the text as models see it.

        Raises:
            Problem: the text holds half of a surrogate pair, which no file can hold.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            what = f"character {error.start + 1} is {half}, half of a surrogate pair"
            raise Problem(f"{what}; repair the text") from error
        text = self._compose(text)
        if self.lower:
            text = self._compose(text.lower())  # there is a letter ǰ, but no large one
        return " ".join(text.split()) if self.whitespace else text

    def _compose(self, text: str) -> str:
        match self.unicode:
            case "nfc":
                return unicodedata.normalize("NFC", text)
            case "nfkc":
                return unicodedata.normalize("NFKC", text)
            case "nfd":
                return unicodedata.normalize("NFD", text)
            case "none":
                return text
