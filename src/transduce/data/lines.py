"""Lines of text files, plain or gzipped, read strictly: what is no text is named, never guessed."""

from __future__ import annotations

import codecs
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from gzip import BadGzipFile, GzipFile
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

from transduce.problem import Problem, nearest

LONGEST: Final = 2**24  # bytes of a line that are read into memory
ENDLESS: Final = "endless line"
KEPT: Final = 100  # places that are remembered for each reason


class Fault(NamedTuple):
    """Why a line cannot be used."""

    place: str  # file:line
    reason: str  # the same for all faults of a kind
    what: str  # what is wrong; what to do

    def problem(self) -> Problem:
        """Return the fault as an error."""
        return Problem(self.what, self.place)


class Line(NamedTuple):
    """A line without its end; what is no UTF-8 in it is escaped, and the line has a fault."""

    place: str
    text: str
    fault: Fault | None = None


@dataclass
class Skipped:
    """What was left out of a corpus: how often for each reason, and the first places of each."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def note(self, fault: Fault) -> None:
        """Count one fault."""
        self.counts[fault.reason] += 1
        places = self.places.setdefault(fault.reason, [])
        if len(places) < KEPT:
            places.append(fault.place)

    def add(self, other: Skipped) -> None:
        """Count what was left out of another corpus, too."""
        self.counts += other.counts
        for reason, places in other.places.items():
            kept = self.places.setdefault(reason, [])
            kept += places[: KEPT - len(kept)]


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file that LF or CR LF ends; a mark (BOM) at its start is no text.

    Raises:
        Problem: the file cannot be read as a whole: missing, no file, UTF-16, damaged gzip.
    """
    number = offset = 0
    try:
        with open_file(path) as raw:
            file = _unpacked(raw, path)
            while content := file.readline(LONGEST):
                number += 1
                yield _line(content, f"{path}:{number}", offset)
                offset += len(content)
                while not content.endswith(b"\n") and (content := file.readline(LONGEST)):
                    offset += len(content)
    except (EOFError, zlib.error, BadGzipFile):
        what = "the gzip file is cut off or damaged here; fetch it again"
        raise Problem(what, f"{path}:{number + 1}") from None
    except OSError as error:
        raise Problem(f"cannot be read: {error.strerror}", str(path)) from None


def open_file(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises:
        Problem: it is missing, is no file, or may not be read.
    """
    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise Problem("this is no ordinary file; name one", str(path))
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise Problem(f"cannot be read: {error.strerror}", str(path)) from None


def _unpacked(raw: BufferedReader, path: Path) -> BufferedReader | GzipFile:
    start = raw.read(4)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return GzipFile(fileobj=raw)
    if path.suffix == ".gz":
        raise Problem("this is no gzip file; fetch it again or rename it", str(path))
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Problem("this is UTF-16; convert it: iconv -f UTF-16 -t UTF-8", str(path))
    return raw


def _missing(path: Path) -> Problem:
    folder = path.parent
    if not folder.is_dir():
        return Problem(f"there is no folder {folder}", str(path))
    meant = nearest(path.name, sorted(file.name for file in folder.iterdir()))
    return Problem(
        "there is no such file" + (f"; did you mean {meant!r}?" if meant else ""), str(path)
    )


def _line(content: bytes, place: str, offset: int) -> Line:
    """Decode a line that starts ``offset`` bytes after the start of its file."""
    if len(content) == LONGEST and not content.endswith(b"\n"):
        what = f"the line is longer than {LONGEST} bytes; break it up"
        return Line(place, "", Fault(place, ENDLESS, what))
    if offset == 0:
        content = content.removeprefix(codecs.BOM_UTF8)
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        what = (
            f"byte {error.start + 1} of the line (byte {offset + error.start + 1} of the file) is "
            f"0x{content[error.start]:02X}, not UTF-8; save the file as UTF-8"
        )
        text = content.decode(errors="surrogateescape")
        return Line(place, text, Fault(place, "not UTF-8", what))
    if "\r" in text:
        what = "a carriage return inside of the line; end lines by a line feed"
        return Line(place, text, Fault(place, "carriage return", what))
    return Line(place, text)
