"""The command line: one function per verb, each of which calls one function of the package."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transduce import __version__
from transduce.problem import Problem

if TYPE_CHECKING:
    from transduce.experiment import Experiment

app = typer.Typer(
    help="Train, understand and ship encoder-decoder models of every kind.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there at once
)

Config = Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The configuration.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to it, such as train.max_steps=1000."),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder that the paths of the data start from. [default: EXPERIMENT's]"
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or of a model.")]
SearchChanges = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes, such as search.width=8."),
]
FileAndChanges = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE|KEY=VALUE",
        help="Text, a line each (standard input if left out), and changes, such as search.width=8.",
    ),
]
Beam = Annotated[int | None, typer.Option(min=1, metavar="N", help="Beam search of this width.")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Greedy search.")]
Parts = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE.py", help="A file of your own that defines parts."),
]


def main() -> None:
    """Run the command line; what the user can put right is a message, and exit code 2."""
    # Threads that spin while they wait make each other up to 15 times slower on a shared machine;
    # torch reads the setting when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        app(prog_name="transduce")
    except Problem as problem:
        typer.echo(str(problem), err=True)
        sys.exit(problem.exit_code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"transduce {__version__}")
        raise typer.Exit


@app.callback()
def transduce(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train, understand and ship encoder-decoder models of every kind."""


@app.command()
def quickstart(
    changes: Changes = None,
    task: Annotated[
        str, typer.Option(help="data-to-text, translation or pronunciation.")
    ] = "data-to-text",
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run. [default: runs/quickstart or runs/TASK]")
    ] = None,
) -> None:
    """Train a model on data that comes along."""
    from transduce.quickstart import quickstart
    from transduce.train.progress import Show

    folder = run or Path("runs", "quickstart" if task == "data-to-text" else task)
    raise typer.Exit(quickstart(task, folder, changes or (), Show()))


@app.command()
def init(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA",
            help="Train, dev and test data: each a table (.tsv, .csv, .jsonl) or two text files.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
) -> None:
    """Write a configuration sized to your data."""
    from transduce.recipe.init import init

    typer.echo(init(data, out))


@app.command()
def check(experiment: Config, changes: Changes = None, data: DataFolder = None) -> None:
    """Say what training would find, and train nothing."""
    from transduce.recipe.check import check
    from transduce.train.progress import Show

    typer.echo(check(_read(experiment, changes), data or experiment.parent, Show()))


@app.command()
def train(
    experiment: Config,
    changes: Changes = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run. [default: runs/EXPERIMENT]")
    ] = None,
    data: DataFolder = None,
    processes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes of this machine that share the work.")
    ] = 1,
) -> None:
    """Train a model, or go on where a run stopped."""
    from transduce.recipe import train
    from transduce.train.launch import launch, launched
    from transduce.train.progress import Show

    settings = _read(experiment, changes)
    if not launched(processes):
        raise typer.Exit(launch(processes, Show()))
    folder = run or Path("runs", experiment.stem)
    base = data or experiment.parent
    raise typer.Exit(train(settings, base, folder, Show()))


def _read(path: Path, changes: Sequence[str] | None) -> Experiment:
    from transduce.blueprint import read
    from transduce.experiment import Experiment

    if path.suffix not in (".yaml", ".yml"):
        what = f"no configuration (.yaml); for data, first: transduce init {path} -o my.yaml"
        raise Problem(what, str(path))
    return read(path, Experiment, changes or (), trusted=True)


@app.command()
def predict(
    run: Run,
    arguments: FileAndChanges = None,
    beam: Beam = None,
    greedy: Greedy = False,
    nbest: Annotated[
        int, typer.Option(min=1, metavar="N", help="N answers, behind the number of their line.")
    ] = 1,
    scores: Annotated[bool, typer.Option("--scores", help="The score before each text.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Lines to read before answering them.")
    ] = 4096,
    parts: Parts = None,
) -> None:
    """Answer every line by a line, in order."""
    from transduce.recipe.use import predict, texts_of
    from transduce.train.progress import Show

    file, changes = _file_and_changes(arguments, "predict")
    lines = texts_of(file or sys.stdin.buffer)
    if not file and sys.stdin.isatty():
        batch = 1
    found = predict(
        run,
        lines,
        [*_search(beam, greedy), *changes],
        parts=parts or (),
        best=nbest,
        scores=scores,
        ahead=batch,
        show=Show(),
    )
    for answer in found:
        typer.echo(answer.encode())


@app.command()
def stream(
    run: Run, arguments: FileAndChanges = None, greedy: Greedy = False, parts: Parts = None
) -> None:
    """Answer every line by a line that is shown as it grows."""
    from transduce.recipe.use import stream, texts_of
    from transduce.train.progress import Show

    file, changes = _file_and_changes(arguments, "stream")
    lines = texts_of(file or sys.stdin.buffer)
    changes = [*_search(None, greedy), *changes]
    for bit in stream(run, lines, changes, parts=parts or (), show=Show()):
        typer.echo(bit.encode(), nl=False)


@app.command()
def score(
    run: Run,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|KEY=VALUE",
            help="Source and target, a tab between them, a line each (standard input if left "
            "out), and changes, such as ensemble.runs=[RUN2].",
        ),
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Objects that name the symbols.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Lines to read before scoring them.")
    ] = 4096,
    parts: Parts = None,
) -> None:
    """Say how likely given targets are, and each of their symbols."""
    from transduce.recipe.score import score
    from transduce.recipe.use import texts_of

    file, changes = _file_and_changes(arguments, "score")
    lines = texts_of(file or sys.stdin.buffer)
    if not file and sys.stdin.isatty():
        batch = 1
    name = str(file or "stdin")
    for row in score(run, lines, name, changes, parts=parts or (), jsonl=jsonl, ahead=batch):
        typer.echo(row.encode())


def _file_and_changes(arguments: Sequence[str] | None, verb: str) -> tuple[Path | None, list[str]]:
    """Tell a file (None: standard input) from changes."""
    arguments = arguments or ()
    changes = [argument for argument in arguments if "=" in argument]
    files = [argument for argument in arguments if "=" not in argument and argument != "-"]
    if len(files) > 1:
        what = f"one file at a time; for several use: cat FILES | transduce {verb} RUN"
        raise Problem(what, files[1])
    return (Path(files[0]) if files else None), changes


@app.command()
def synthesise(
    run: Run,
    text: Annotated[Path, typer.Argument(metavar="TEXT", help="Text, a line each.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.tsv", help="Table to write.")],
    side: Annotated[
        str,
        typer.Option(
            metavar="source|target",
            help="What the model's answers are to be: sources (the model translates back) or "
            "targets (another model is to learn what this one says).",
        ),
    ],
    changes: SearchChanges = None,
    tag: Annotated[
        str, typer.Option(metavar="<TAG>", help="A symbol for every source of the table.")
    ] = "",
    ask: Annotated[
        str, typer.Option(metavar="<TAG>", help="A symbol for every line the model is asked.")
    ] = "",
    parts: Parts = None,
) -> None:
    """Make training data: a table of the lines of a text and a model's answers; resumes."""
    from transduce.recipe.synthesise import Request, synthesise
    from transduce.train.progress import Show

    if side not in ("source", "target"):
        raise Problem(f"no such side {side!r}; choose source or target", "--side")
    request = Request(run, text, side == "source", tag, changes or (), ask)
    typer.echo(synthesise(request, out, parts or (), Show()))


@app.command()
def weigh(
    general: Annotated[Path, typer.Argument(metavar="GENERAL", help="A run on all the data.")],
    trusted: Annotated[Path, typer.Argument(metavar="TRUSTED", help="It, tuned to trusted data.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.tsv", help="Table to write.")],
    data: Annotated[list[Path], typer.Option(help="A table, or twice for two text files.")],
    changes: SearchChanges = None,
    parts: Parts = None,
) -> None:
    """Weigh training data by how much better a model of trusted data likes it; resumes."""
    from transduce.recipe.weigh import weigh
    from transduce.train.progress import Show

    typer.echo(weigh((general, trusted), data, out, changes or (), parts or (), Show()))


@app.command()
def evaluate(
    run: Run,
    data: Annotated[
        list[Path], typer.Option(help="A table (.tsv, .csv, .jsonl), or twice for two text files.")
    ],
    changes: SearchChanges = None,
    beam: Beam = None,
    greedy: Greedy = False,
    parts: Parts = None,
) -> None:
    """Score a model on data with references."""
    from transduce.recipe.use import evaluate

    for score in evaluate(run, data, [*_search(beam, greedy), *(changes or ())], parts or ()):
        typer.echo(str(score))


@app.command()
def calibrate(
    run: Run,
    data: Annotated[
        list[Path], typer.Option(help="Held out: a table, or twice for two text files.")
    ],
    parts: Parts = None,
) -> None:
    """Fit confidences to held-out data, and keep what they need with the model."""
    from transduce.recipe.calibrate import calibrate

    typer.echo(calibrate(run, data, parts or ()))


def _search(beam: int | None, greedy: bool) -> Sequence[str]:
    if beam and greedy:
        raise Problem("choose one of them", "--beam, --greedy")
    if greedy:
        return ["search.kind=greedy"]
    return ["search.kind=beam", f"search.width={beam}"] if beam else []


@app.command()
def verify(run: Run) -> None:
    """Check that a run or a model is undamaged."""
    from transduce.recipe.use import verify

    typer.echo(verify(run))


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a LoRA run.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model folder to write.")],
    base: Annotated[
        Path | None, typer.Option(help="The model that it was made for, if that has moved.")
    ] = None,
) -> None:
    """Make one model of a LoRA adapter and its base."""
    from transduce.recipe.start import merge

    typer.echo(merge(adapter, model, base))


@app.command()
def replay(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, or its faults/step-N.")
    ],
    parts: Parts = None,
) -> None:
    """Make an update again that was not a number, and find the first layer to blame."""
    from transduce.recipe.replay import replay

    typer.echo(str(replay(run, parts or ())))


@app.command()
def schema(parts: Parts = None) -> None:
    """Print the JSON schema of configurations."""
    from transduce.blueprint import define, schema
    from transduce.experiment import Experiment

    for path in parts or ():
        define(path)
    typer.echo(json.dumps(schema(Experiment), indent=2))
