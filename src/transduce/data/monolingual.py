"""Text without a source, for language models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from transduce.data.lines import Fault, Line, read_lines
from transduce.data.read import FilesBlueprint, Row


class MonolingualBlueprint(FilesBlueprint):
    """Text that has no source, an example a line; for language models."""

    paired: ClassVar[bool] = False

    kind: Literal["monolingual"] = "monolingual"

    @model_validator(mode="after")
    def _has_no_source_to_group_by(self) -> MonolingualBlueprint:
        if self.group:
            raise ValueError("group: there are no sources to group by; leave it out")
        return self

    def rows(self, base: Path) -> Iterator[Row | Fault]:
        for name in self.files:
            for line in read_lines(base / name):
                yield Row(Line(line.place, ""), (line,))

    def _fault(self, row: Row) -> Fault | None:
        anything = Line(row.source.place, "-")  # that there is no source is no fault
        return super()._fault(Row(anything, row.references))
