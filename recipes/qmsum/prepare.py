"""QMSum as examples: the source is a question and a whole meeting, the target its answer.

    python recipes/qmsum/prepare.py QMSum/data/ALL/jsonl

reads train, val and test (.jsonl or .jsonl.gz, a meeting a line) of github.com/Yale-LILY/QMSum
(Zhong 2021; MIT licence) and writes data/train.jsonl, data/val.jsonl and data/test.jsonl beside
itself, a question a line. Words and punctuation are separated by spaces, so that what is copied
fits; marks such as {vocalsound} are left out. Nothing is cut.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from transduce.data.lines import read_lines
from transduce.problem import Problem

HERE: Final = Path(__file__).parent
MARK: Final = re.compile(r"\{[^{}]*\}")
WORD: Final = re.compile(r"'\w+|\w+|[^\w\s]")


def words(text: str) -> str:
    """Return the words of a text with one space between them."""
    return " ".join(WORD.findall(MARK.sub(" ", text)))


def examples(meeting: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield an example for each question about a meeting."""
    turns = (
        words(f"{turn['speaker']}: {turn['content']}") for turn in meeting["meeting_transcripts"]
    )
    transcript = " ".join(turns)
    for asked in (*meeting["general_query_list"], *meeting["specific_query_list"]):
        yield {
            "source": f"{words(asked['query'])} | {transcript}",
            "target": words(asked["answer"]),
        }


def convert(source: Path, target: Path, most: int | None) -> tuple[int, int]:
    """Write the examples of one file; return the number of meetings and of examples.

    Raises:
        Problem: the file is missing or damaged.
    """
    meetings = count = 0
    with target.open("w", encoding="utf-8", newline="\n") as out:
        for line in islice(read_lines(source), most):
            if line.fault:
                raise line.fault.problem()
            meetings += 1
            for example in examples(json.loads(line.text)):
                out.write(json.dumps(example, ensure_ascii=False) + "\n")
                count += 1
    return meetings, count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the files of QMSum are")
    parser.add_argument(
        "--out", type=Path, default=HERE / "data", help="default: data/, beside this"
    )
    parser.add_argument("--meetings", type=int, help="only so many of each file, for a quick look")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("train", "val", "test"):
        packed = options.folder / f"{name}.jsonl.gz"
        source = packed if packed.exists() else packed.with_suffix("")
        try:
            found = convert(source, options.out / f"{name}.jsonl", options.meetings)
        except Problem as problem:
            raise SystemExit(str(problem)) from None
        print(f"{name}: {found[0]} meetings, {found[1]:,} questions")


if __name__ == "__main__":
    main()
