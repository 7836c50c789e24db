"""Every kind of damage that files are known to have, and what the user is told about it."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from transduce.blueprint import Blueprint, parse
from transduce.data.lines import LONGEST, Skipped
from transduce.data.read import CorpusBlueprint
from transduce.problem import Problem

PARALLEL = {"kind": "parallel", "source": "a", "target": "b"}
TSV: dict[str, Any] = {"kind": "tsv", "path": "t"}
CSV: dict[str, Any] = {"kind": "csv", "path": "t"}
JSONL: dict[str, Any] = {"kind": "jsonl", "path": "t"}


class Experiment(Blueprint):
    train: CorpusBlueprint


UTF16 = "a\tb\n".encode("utf-16")
CUT = gzip.compress(os.urandom(5000).hex().encode())[:2000]
BROKEN: list[tuple[dict[str, Any], dict[str, bytes], str]] = [
    # files as a whole
    (TSV, {"tt": b""}, "t: there is no such file; did you mean 'tt'?"),
    ({**TSV, "path": "no/t"}, {}, "no/t: there is no folder .*no"),
    (TSV, {"t": UTF16}, r"t: this is UTF-16; convert it: iconv -f UTF-16 -t UTF-8"),
    (
        TSV,
        {"t": UTF16[2:]},
        "t:1: the source holds a NUL character; remove it, or convert .* UTF-16",
    ),
    ({**TSV, "path": "t.gz"}, {"t.gz": b"a\tb\n"}, r"t.gz: this is no gzip file; fetch it again"),
    ({**TSV, "path": "t.gz"}, {"t.gz": b""}, r"t.gz: this is no gzip file; fetch it again"),
    (TSV, {"t": CUT}, "t:1: the gzip file is cut off or damaged here; fetch it again"),
    (TSV, {"t": gzip.compress(b"a\tb\n")[:-8] + b"damaged!"}, "t:2: the gzip file is cut off or"),
    (TSV, {"t": gzip.compress(b"a\tb\n") + b"more"}, "t:2: the gzip file is cut off or damaged"),
    (TSV, {"t": b""}, "t: there is no example in it"),
    (
        PARALLEL,
        {"a": b"1\n2\n3\n", "b": b"1\n2\n"},
        "b:3: this line is missing, but .*a goes on; give",
    ),
    (PARALLEL, {"a": b"", "b": b"1\n2\n"}, "a:1: this line is missing, but .*b goes on; give"),
    # lines
    (
        TSV,
        {"t": b"a\tb\na\t\xe4\n"},
        "t:2: byte 3 of the line .byte 7 of the file. is 0xE4, not UTF-8",
    ),
    (
        PARALLEL,
        {"a": b"a\nb\n", "b": b"a\n\xff\n"},
        "b:2: byte 1 of the line .* 0xFF, not UTF-8; save",
    ),
    (
        CSV,
        {"t": b'"a\n\xff",b\n'},
        "t:2: byte 1 of the line .byte 4 of the file. is 0xFF, not UTF-8",
    ),
    (TSV, {"t": b"a\tb\nc\td\ra\tb\n"}, "t:2: a carriage return inside of the line; end lines by"),
    (TSV, {"t": b"a\rb"}, "t:1: a carriage return inside of the line; end lines by a line feed"),
    (TSV, {"t": b"a\tb\0\n"}, "t:1: the target holds a NUL character; remove it"),
    (
        PARALLEL,
        {"a": b"a\n\n", "b": b"a\nb\n"},
        "a:2: the source is empty; write it, or take the whole",
    ),
    (PARALLEL, {"a": b"a\nb\n", "b": b"a\n \xe2\x80\xa8\n"}, "b:2: the target is empty; write it"),
    (
        TSV,
        {"t": b"a\t" + b"x" * 10_001 + b"\n"},
        "t:1: the target has 10001 characters, more than 10000;",
    ),
    (
        TSV,
        {"t": b"a\tb\n" + b"x" * (LONGEST + 5)},
        f"t:2: the line is longer than {LONGEST} bytes; break",
    ),
    (
        CSV,
        {"t": b"a,b\n" + b"x" * (LONGEST + 5)},
        f"t:2: the line is longer than {LONGEST} bytes; break",
    ),
    # tables
    (
        TSV,
        {"t": b"a\tb\n\na\tb"},
        "t:2: 1 columns, but .*t:1 has 2; give all rows the same columns",
    ),
    (
        TSV,
        {"t": b"a\tb\na\tb\tc\n"},
        "t:2: 3 columns, but .*t:1 has 2; give all rows the same columns",
    ),
    ({**TSV, "target": 3}, {"t": b"a\tb\n"}, "t:1: there is no column 3; the row has 2"),
    (
        {**TSV, "source": "sorce"},
        {"t": b"source\tb\n"},
        "t:1: .* no column 'sorce'; did you mean 'source'",
    ),
    (
        {**TSV, "source": "x"},
        {"t": b"english\tb\n"},
        "t:1: .* no column 'x'; choose from .english, b.",
    ),
    (
        {**TSV, "source": "x"},
        {"t": b"x\tx\n"},
        "t:1: several columns are called 'x'; rename all but one",
    ),
    ({**TSV, "source": "x"}, {"t": b"x\t\xff\n"}, "t:1: byte 3 of the line .* not UTF-8"),
    (
        CSV,
        {"t": b'a,b\n"c,d\ne,f\n'},
        "t:2: no CSV .unexpected end of data.; check the quotes from here",
    ),
    (
        CSV,
        {"t": b'a,b\n"c"c,d\n'},
        "t:2: no CSV .* expected after .*; check the quotes from here on",
    ),
    # JSON
    (JSONL, {"t": b'{"source": "a"'}, "t:1: no JSON .* at character 15.; mend it"),
    (JSONL, {"t": b"\n"}, "t:1: no JSON .Expecting value at character 1.; mend it"),
    (JSONL, {"t": b"[" * 100_000}, "t:1: no JSON .nested too deep.; mend it"),
    (JSONL, {"t": b"1" * 5_000}, "t:1: Infinity is no object; write one"),
    (JSONL, {"t": b"[1]\n"}, "t:1: .1.0. is no object; write one"),
    (
        JSONL,
        {"t": b'{"sources": "a", "target": "b"}'},
        "t:1: .* no key 'source'; did you mean 'sources'",
    ),
    (
        JSONL,
        {"t": b'{"q": "a", "target": "b"}'},
        "t:1: there is no key 'source'; there is .q, target.",
    ),
    (
        JSONL,
        {"t": b'{"source": 1, "target": "b"}'},
        "t:1: 'source': 1.0 is no text; write one in quotes",
    ),
    (JSONL, {"t": b'{"source": ["a"], "target": "b"}'}, "t:1: 'source': .* is no text; write one"),
    (
        JSONL,
        {"t": b'{"source": "a", "target": []}'},
        "t:1: 'target' is an empty list; write a text",
    ),
    (
        JSONL,
        {"t": b'{"source": "a", "target": ["b", null]}'},
        "t:1: 'target': null is no text; write",
    ),
    (
        JSONL,
        {"t": b'{"source": "\\ud800", "target": "b"}'},
        "t:1: 'source' holds half of a surrogate",
    ),
    (
        JSONL,
        {"t": b'{"source": "\\u0000", "target": "b"}'},
        "t:1: the source holds a NUL character",
    ),
    (JSONL, {"t": b'{"source": "a", "source": "b"}'}, "t:1: the same key twice; keep one"),
]


@pytest.mark.parametrize(("settings", "files", "expected"), BROKEN)
def test_damage_is_named_with_its_place_and_its_cure(
    tmp_path: Path, settings: dict[str, Any], files: dict[str, bytes], expected: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    corpus = parse(json.dumps({"train": settings}), Experiment).train
    with pytest.raises(Problem) as found:
        list(corpus.read(tmp_path, Skipped()))
    assert re.match(f"{tmp_path}/(?:{expected})", str(found.value)), str(found.value)
    assert "\n" not in str(found.value)
