"""What a run writes down as it goes: a JSON object a line, and TensorBoard if wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from transduce import folder
from transduce.problem import Problem, optional

Record = Mapping[str, Any]


class Journal:
    """A file of records, one JSON object a line; what cannot be written waits for the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[Record] = []

    def add(self, record: Record) -> None:
        """Append a record.

        Raises:
            OSError: it cannot be written now, and nothing of it is.
        """
        self._waiting.append(record)
        with self.path.open("ab", buffering=0) as file:
            size, rest = file.tell(), "".join(map(_line, self._waiting)).encode()
            try:
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)
                raise
        self._waiting = []

    def force(self) -> None:
        """Force what was written to the disk."""
        if self.path.exists():
            folder.force(self.path)

    def rewind(self, step: int) -> None:
        """Forget what was written after update ``step``: the run goes on from there."""
        if self.path.exists() or self._waiting:
            kept = [record for record in self.read() if record["step"] <= step]
            folder.write_text(self.path, "".join(map(_line, kept)))
            self._waiting = []

    def read(self) -> list[dict[str, Any]]:
        """Return all records, but not a last line that a crash cut off; none if there is no file.

        Raises:
            Problem: a line before the last is damaged.
        """
        records: list[dict[str, Any]] = []
        *lines, _cut = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        for number, line in enumerate(lines, 1):
            try:
                records.append(json.loads(line))
            except ValueError:
                where = f"{self.path}:{number}"
                raise Problem("this line is damaged; remove it", where) from None
        return [*records, *map(dict, self._waiting)]


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


class TensorBoard:
    """The same numbers as TensorBoard shows them (extra ``track``).

    What an earlier part of the run wrote there after update ``step`` is forgotten.
    """

    def __init__(self, target: Path, step: int) -> None:
        self._writer = tensorboard().SummaryWriter(str(target), purge_step=step + 1)

    def add(self, record: Record) -> None:
        """Write every number of a record."""
        numbers = {**record, **record.get("scores", {})}
        for name, value in numbers.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        self._writer.flush()


def tensorboard() -> ModuleType:
    """Return torch's side of TensorBoard.

    Raises:
        Problem: TensorBoard is not installed.
    """
    try:
        return optional("torch.utils.tensorboard", "track")
    except Problem as problem:
        raise Problem(problem.what, "train.tensorboard") from None
