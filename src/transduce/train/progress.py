"""What a person sees while a run goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Show:
    """Prints progress; ``quiet`` prints nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True, stderr=True)
        self._progress: Progress | None = None

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, emoji=False)

    def start(self, step: int, last: int) -> None:
        """Begin to show updates."""
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self.console)
            self._progress.add_task("training", total=last, completed=step)
            self._progress.start()

    def end(self) -> None:
        """Take the live line away."""
        if self._progress:
            self._progress.stop()
            self._progress = None

    def update(self, record: Mapping[str, Any], last: int, pace: float) -> None:
        """Show where training is; an update takes ``pace`` seconds."""
        speed = record["tokens_per_second"]
        text = f"loss {record['nll']:.3f}  {speed:,.0f} tokens/s"
        if self._progress:
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=record["step"], description=text)
        else:
            left = duration((last - record["step"]) * pace)
            self.say(f"step {record['step']}/{last}  {text}  {left} left")

    def validation(self, record: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """Show a validation and a sample prediction."""
        scores = "  ".join(f"{name} {value:.3f}" for name, value in record["scores"].items())
        best = "  (best so far)" if record["best"] else ""
        self.say(f"step {record['step']}: {scores}{best}")
        for sample in samples[:1]:
            self.say(f"    in:  {sample['source']}")
            self.say(f"    out: {sample['prediction']}")


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
