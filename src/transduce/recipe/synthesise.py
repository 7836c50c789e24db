"""Training data that a model makes of text: back-translation, and distillation of sequences."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from transduce import folder
from transduce.bundle import fingerprint, model_folder
from transduce.data.lines import Line, read_lines
from transduce.problem import Problem
from transduce.recipe.use import PredictBlueprint, asked
from transduce.result import Result
from transduce.train.progress import Show
from transduce.transducer import Transducer

BLOCK: Final = 4096  # lines that are answered together; what is done is written down after each
ROWS, STATE = "rows.tsv", "state.json"
PATIENCE: Final = 60.0  # seconds between two words on how far it is


class Request(NamedTuple):
    """What is to be made of what."""

    run: Path
    text: Path
    backwards: bool  # the answers are sources, the lines are targets
    tag: str = ""  # to stand before every source
    changes: Sequence[str] = ()  # of the search
    ask: str = ""  # a tag that the model wants to see before every line


@dataclass
class Done:
    """How far it is; what the table holds beyond ``size`` bytes was not finished."""

    lines: int = 0
    size: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def synthesise(request: Request, out: Path, parts: Sequence[Path], show: Show) -> str:
    """Write a table of sources and targets, of which a model has made one; return what was done.

    Memory does not grow with the text. Until all is done the table is in the folder ``OUT.part``,
    and the same command goes on there after whatever stopped it: what is written is, bit for bit,
    what would have been written in one go.

    Raises:
        Problem: the table exists, was begun with something else, or there is no sound model.
    """
    if out.suffix != ".tsv":
        raise Problem("what is written is a table; let its name end in .tsv", str(out))
    if out.exists():
        raise Problem("this file exists; choose another name or remove it", str(out))
    for option, tag in (("--tag", request.tag), ("--ask", request.ask)):
        if "\t" in tag or tag != tag.strip():
            raise Problem("a tag has no tab, and no space around it", option)
    model, setting = asked(request.run, request.changes, parts)
    if request.ask and request.ask not in (known := model.bundle.codecs["source"].reserved):
        has = f"choose from ({', '.join(known)})" if known else "it has none; leave it out"
        raise Problem(f"the model knows no tag {request.ask!r}; {has}", "--ask")
    if not model.panel.reads:
        raise Problem("a language model answers nothing; name a model that reads", str(request.run))
    if setting.own is not None:
        raise Problem(
            "a text has lines that are left out, which a file of a line each has not", "own"
        )
    if setting.confidence:
        raise Problem("the table has no column for it; leave it out", "confidence")
    if setting.precision == "auto":
        raise Problem(
            "what gains is measured each time, and a table that is gone on with is of one kind; "
            "say which: fp32, bf16 or int8",
            "precision",
        )
    unfinished = out.with_name(f"{out.name}.part")
    with folder.alone(unfinished, wait=False):
        done = _begun(unfinished, _identity(request, setting), show)
        _go_on(request, model, setting, unfinished, done, show)
        (unfinished / ROWS).replace(out)
        shutil.rmtree(unfinished)
    return _told(done, out)


def _identity(request: Request, setting: PredictBlueprint) -> str:
    """Return a SHA-256 of all that the table follows from."""
    facts = {
        "models": [fingerprint(model_folder(run)) for run in _asked(request, setting)],
        "text": folder.digest(request.text) if request.text.is_file() else None,
        "setting": setting.model_dump(mode="json"),
        "request": [request.backwards, request.tag, BLOCK, request.ask],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _asked(request: Request, setting: PredictBlueprint) -> Iterator[Path]:
    """Yield the folders of all models that have a say."""
    yield request.run
    if setting.ensemble is not None:
        yield from map(Path, setting.ensemble.runs)
    for beside in (setting.fusion, *(setting.rerank.witnesses if setting.rerank else ())):
        if beside is not None:
            yield Path(beside.run)
    if setting.drafter is not None:
        yield Path(setting.drafter)


def _begun(unfinished: Path, identity: str, show: Show) -> Done:
    """Return how far it was, having taken away what was not finished."""
    if not (unfinished / STATE).exists():
        done = Done()
        (unfinished / ROWS).write_bytes(b"")
        _note(unfinished, identity, done)
        return done
    state = folder.read_json(unfinished / STATE)
    if state.pop("identity") != identity:
        raise Problem(
            "it was begun with another model, text, search, side or tags; remove it, or choose "
            "another name",
            str(unfinished),
        )
    done = Done(**{**state, "left_out": Counter(state["left_out"])})
    rows = unfinished / ROWS
    if not rows.exists() or rows.stat().st_size < done.size:
        raise Problem("the table in it was cut off; remove it and start again", str(unfinished))
    os.truncate(rows, done.size)
    if done.lines:
        show.say(f"going on after line {done.lines:,}")
    return done


def _note(unfinished: Path, identity: str, done: Done) -> None:
    facts: dict[str, Any] = {"identity": identity, **vars(done)}
    folder.write_json(unfinished / STATE, facts)


def _go_on(
    request: Request,
    model: Transducer,
    setting: PredictBlueprint,
    unfinished: Path,
    done: Done,
    show: Show,
) -> None:
    identity = folder.read_json(unfinished / STATE)["identity"]
    lines = read_lines(request.text)
    for _ in islice(lines, done.lines):
        pass
    said, answer = time.monotonic(), setting.answering(model, ahead=BLOCK)
    with (unfinished / ROWS).open("ab") as table:
        while block := list(islice(lines, BLOCK)):
            texts = _texts(request, model, setting, block, done.left_out)
            for row in _rows(request, answer(texts, None), done.left_out):
                table.write(row.encode())
                done.rows += 1
            _force(table)
            done.lines, done.size = done.lines + len(block), table.tell()
            _note(unfinished, identity, done)
            if time.monotonic() - said > PATIENCE:
                said = time.monotonic()
                show.say(f"{done.lines:,} lines")


def _force(table: BinaryIO) -> None:
    table.flush()
    os.fsync(table.fileno())


def _texts(
    request: Request,
    model: Transducer,
    setting: PredictBlueprint,
    block: Sequence[Line],
    left_out: Counter[str],
) -> list[str]:
    """Return the texts of a block of lines that can be asked about; count the others."""
    texts = []
    for line in block:
        text = f"{request.ask} {line.text}" if request.ask else line.text
        if fault := _fault(line):
            left_out[fault] += 1
        elif setting.split is None and not model.panel.fits(text):
            left_out["lines longer than the model has positions for"] += 1
        else:
            texts.append(text)
    return texts


def _rows(request: Request, results: Iterable[Result], left_out: Counter[str]) -> Iterator[str]:
    """Yield the rows that answers make; count those that make none."""
    for result in results:
        answer = " ".join(result.text.replace("\t", " ").split("\n"))
        if fault := _failure(result):
            left_out[fault] += 1
            continue
        line = result.source.removeprefix(f"{request.ask} ") if request.ask else result.source
        source, target = (answer, line) if request.backwards else (line, answer)
        yield f"{request.tag} {source}\t{target}\n" if request.tag else f"{source}\t{target}\n"


def _fault(line: Line) -> str | None:
    """Return why a line cannot be asked about, whatever the model."""
    if line.fault:
        return f"lines: {line.fault.reason}"
    if not line.text.strip():
        return "blank lines"
    if "\t" in line.text:
        return "lines with a tab"
    return None


def _failure(result: Result) -> str | None:
    """Return why an answer teaches nothing."""
    if not result.text.strip():
        return "blank answers"
    return None if result.finished else "answers that the length limit cut off"


def _told(done: Done, out: Path) -> str:
    left_out = [f"{count:,} {reason}" for reason, count in done.left_out.most_common()]
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"{out}: {done.rows:,} rows of {done.lines:,} lines{rest}"
