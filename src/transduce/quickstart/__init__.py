"""Three complete experiments on real data that comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transduce.blueprint import read
from transduce.experiment import Experiment
from transduce.problem import Problem, nearest
from transduce.recipe import train
from transduce.train.progress import Show

HERE = Path(__file__).parent
TASKS = ("data-to-text", "translation", "pronunciation")


def quickstart(task: str, run: Path, overrides: Sequence[str], show: Show) -> int:
    """Train the model of a task in the folder ``run``; return the exit code.

    Raises:
        Problem: there is no such task.
    """
    if task not in TASKS:
        meant = nearest(task, TASKS)
        hint = f"did you mean {meant!r}? " if meant else ""
        raise Problem(f"no such task {task!r}; {hint}({', '.join(TASKS)})", "--task")
    code = train(read(HERE / f"{task}.yaml", Experiment, overrides), HERE, run, show)
    if code == 0:
        show.say(_next(run, task))
    return code


def _next(run: Path, task: str) -> str:
    example = {
        "data-to-text": "name[The Eagle], eatType[coffee shop], food[French], area[riverside]",
        "translation": "Where did you learn Chinese?",
        "pronunciation": "TRANSDUCER",
    }[task]
    return "\n".join(
        [
            "",
            "What now?",
            f"  look at it     open {run / 'report.html'}",
            f"  use it         echo '{example}' | transduce predict {run}",
            f"  from Python    from transduce import Transducer; "
            f'print(Transducer.load("{run}")("{example}"))',
            "  your own data  transduce init DATA.tsv -o my.yaml && transduce train my.yaml",
        ]
    )
