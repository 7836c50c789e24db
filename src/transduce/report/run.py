"""The files of a run folder, read as they are: some missing, some half written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transduce.blueprint.yaml12 import load
from transduce.problem import Problem

Record = Mapping[str, Any]
MOST = 1e90  # no number beyond is worth drawing


@dataclass(frozen=True)
class Run:
    """What a run folder holds; ``notes`` say what is missing, went wrong or could not be read."""

    name: str
    configuration: str | None
    experiment: Record
    environment: Record
    data: Record
    steps: Sequence[Record]
    validations: Sequence[Record]
    samples: Sequence[Record]
    attention: Sequence[Record]
    scores: Record
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """The name the configuration gives, or else the folder's."""
        name = self.experiment.get("name")
        return name if isinstance(name, str) and name.strip() else self.name


def read(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        Problem: there is no such folder.
    """
    if not folder.is_dir():
        raise Problem("there is no such folder; give the folder of a run", str(folder))
    reader = _Reader(folder)
    configuration = reader.text("experiment.yaml", "the configuration")
    records = reader.lines("train.jsonl", "the course of training")
    reader.notes.extend([*_left_out(records), *_cramped(records)])
    return Run(
        name=folder.resolve().name,
        configuration=configuration,
        experiment=reader.yaml(configuration),
        environment=reader.object("environment.json", "the environment"),
        data=reader.object("data.json", "the data counts"),
        steps=reader.in_order(records, "step"),
        validations=reader.in_order(records, "validation"),
        samples=reader.lines("samples.jsonl", "predictions as training went on"),
        attention=reader.objects("attention.json", "attention maps"),
        scores=reader.object("scores.json", "final scores"),
        notes=reader.notes,
    )


def _left_out(records: Sequence[Record]) -> Iterator[str]:
    """Say how many updates were not numbers, and how often the run went back because of them."""
    updates = returns = 0
    for entry in records:
        if entry.get("kind") == "fault":
            updates += 1
        elif entry.get("kind") == "return":  # it counts those before it, which were made anew
            updates, returns = int(number(entry.get("left_out")) or 0), returns + 1
    if updates:
        were = "update was" if updates == 1 else "updates were"
        back = f", and the run went back {returns} times to go on at a lower rate" * (returns > 0)
        yield f"{updates:,} {were} left out: loss or gradient was not a number{back}."


def _cramped(records: Sequence[Record]) -> Iterator[str]:
    """Say how often memory ran out, and in which processes."""
    cramped = [number(entry.get("process")) for entry in records if entry.get("kind") == "memory"]
    if cramped:
        counts = sorted(Counter(int(process or 1) for process in cramped).items())
        where = ", ".join(f"{count:,} times in process {process}" for process, count in counts)
        yield f"Memory ran out {where}: such batches were computed in parts, none was left out."


def number(value: Any) -> float | None:
    """Return a number that can be drawn, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < MOST else None  # and NaN is below nothing


def record(value: Any) -> Record:
    """Return a JSON object, empty if it is anything else."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """Return a JSON list, empty if it is anything else."""
    return value if isinstance(value, list) else []


@dataclass
class _Reader:
    folder: Path
    notes: list[str] = field(default_factory=list)

    def text(self, name: str, holds: str) -> str | None:
        try:
            return (self.folder / name).read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            self.notes.append(f"{name} is not there: no {holds.removeprefix('the ')}.")
        except OSError as error:
            self.notes.append(f"{name} cannot be read ({error.strerror}).")
        return None

    def yaml(self, text: str | None) -> Record:
        if text is None:
            return {}
        try:
            return record(load(text, "experiment.yaml").data)
        except Problem as problem:
            self.notes.append(f"{problem}.")
            return {}

    def json(self, name: str, holds: str) -> Any:
        text = self.text(name, holds)
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            self.notes.append(f"{name} is not whole: no {holds.removeprefix('the ')}.")
            return None

    def object(self, name: str, holds: str) -> Record:
        return record(self.json(name, holds))

    def objects(self, name: str, holds: str) -> list[Record]:
        return [item for item in items(self.json(name, holds)) if isinstance(item, dict)]

    def lines(self, name: str, holds: str) -> list[Record]:
        text = self.text(name, holds) or ""
        records: list[Record] = []
        broken = 0
        for line in filter(str.strip, text.split("\n")):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                records.append(value)
            else:
                broken += 1
        if broken:
            lines = "1 line" if broken == 1 else f"{broken:,} lines"
            self.notes.append(f"{lines} of {name} could not be read (a write was cut short).")
        return records

    def in_order(self, records: Sequence[Record], kind: str) -> list[Record]:
        """Keep the records of one kind; a resumed run overtakes what it had written before."""
        kept: list[Record] = []
        overtaken = 0
        for entry in records:
            step = number(entry.get("step"))
            if entry.get("kind") != kind or step is None:
                continue
            while kept and kept[-1]["step"] >= step:
                kept.pop()
                overtaken += 1
            kept.append(entry)
        if overtaken:
            were = "record was" if overtaken == 1 else "records were"
            self.notes.append(
                f"{overtaken:,} {kind} {were} written again after a resume; the last count."
            )
        return kept
