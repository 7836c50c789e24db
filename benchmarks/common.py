"""What the benchmarks share: the data, the three models, and competitors that take turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transduce.data.read import ParallelBlueprint
from transduce.experiment import DataBlueprint, Experiment, TrainBlueprint, ValidationBlueprint
from transduce.models.build import ModelBlueprint
from transduce.models.decoders.recurrent import RecurrentDecoderBlueprint
from transduce.models.decoders.transformer import TransformerDecoderBlueprint
from transduce.models.encoders.recurrent import RecurrentEncoderBlueprint
from transduce.models.encoders.transformer import TransformerEncoderBlueprint
from transduce.recipe.prepare import Prepared, prepare, processor
from transduce.text.codec import CodecBlueprint, TextBlueprint
from transduce.text.tokenise import SentencePieceBlueprint
from transduce.train.progress import Show

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data" / "multi30k" / "raw"
WORK = Path(tempfile.gettempdir()) / "transduce-benchmarks"
SYMBOLS = 8000
MODELS = {
    "A": "A: Transformer 4+4, width 256, inner 1024, 4 heads, all embeddings tied",
    "B": "B: LSTM, encoder 2x256, decoder 512 with attention, embeddings 256",
    "C": "C: B with input feeding",
}


def model(name: str) -> ModelBlueprint:
    """Return the blueprint of model A, B or C; all drop 0.1."""
    if name == "A":
        return ModelBlueprint(
            encoder=TransformerEncoderBlueprint(dropout=0.1),
            decoder=TransformerDecoderBlueprint(dropout=0.1),
            tie="all",
        )
    return ModelBlueprint(
        encoder=RecurrentEncoderBlueprint(dropout=0.1),
        decoder=RecurrentDecoderBlueprint(dropout=0.1, input_feeding=name == "C"),
        tie="none",
    )


def experiment(name: str, **train: Any) -> Experiment:
    """Return training of a model on Multi30k, English to German."""
    pair = [f"{{}}.{language}.gz" for language in ("en", "de")]
    corpora = {
        role: ParallelBlueprint(source=pair[0].format(file), target=pair[1].format(file))
        for role, file in (("train", "train"), ("dev", "val"), ("test", "test_2016_flickr"))
    }
    pieces = CodecBlueprint(tokens=SentencePieceBlueprint(model="bpe", size=SYMBOLS))
    return Experiment(
        data=DataBlueprint(**corpora),
        text=TextBlueprint(source=pieces, joint=True),
        model=model(name),
        train=TrainBlueprint.model_validate(train),
        validation=ValidationBlueprint(every=10**9, examples=1, samples=1, average=False),
    )


def data(name: str, folder: Path) -> Prepared:
    """Return the encoded corpora; they are kept in a temporary folder."""
    os.environ["TRANSDUCE_CACHE"] = str(WORK / "cache")
    return prepare(experiment(name), folder, None, Show(quiet=True))


class Turn(NamedTuple):
    """What one turn did and cost."""

    tokens: int  # real target tokens, EOS included
    slots: int  # the same with padding
    cpu: float  # seconds of all threads together
    wall: float
    note: Any


def serve(work: Iterator[tuple[int, int, Any]]) -> None:
    """Do one piece of ``work`` (tokens, slots, note) for every line that comes in."""
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        tokens, slots, note = next(work)
        turn = Turn(tokens, slots, time.process_time() - cpu, time.perf_counter() - wall, note)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps([turn, peak]), flush=True)


class Competitor:
    """A process of its own that waits for its turn."""

    def __init__(self, name: str, options: Sequence[str], environment: dict[str, str]) -> None:
        self.name, self.turns, self.peak = name, list[Turn](), 0
        self.process = subprocess.Popen(
            [sys.executable, *sys.argv, *options, "--only", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def turn(self) -> Turn:
        """Let it do one piece of its work."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} has failed, see above")
        turn, self.peak = json.loads(answer)
        return Turn(*turn)

    def measure(self, tokens: int | None = None) -> tuple[float, float]:
        """Return tokens (its own, or as many as given) per CPU-second and per second."""
        own = sum(turn.tokens for turn in self.turns) if tokens is None else tokens
        return own / sum(turn.cpu for turn in self.turns), own / sum(t.wall for t in self.turns)


def take_turns(
    names: Sequence[str], options: Sequence[str], warm: int, rounds: int
) -> list[Competitor]:
    """Let the competitors work in turns, so that all meet the same noise; return them measured."""
    # Threads that spin while they wait ruin each other on a shared machine. Plain torch keeps
    # compiled code for 1024 shapes; the import of transduce would change that.
    passive = {"OMP_WAIT_POLICY": "PASSIVE"}
    plain = passive | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}
    competitors = [
        Competitor(name, options, passive if name.startswith("transduce") else plain)
        for name in names
    ]
    for round_ in range(warm + rounds):
        for competitor in competitors:
            turn = competitor.turn()
            if round_ >= warm:
                competitor.turns.append(turn)
    for competitor in competitors:
        competitor.process.communicate()
    return competitors


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(threads: int) -> str:
    """Return what a figure depends on besides the code."""
    import torch

    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({processor()}), {threads} "
        f"thread(s) each, load {load}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def arguments(about: str | None) -> argparse.ArgumentParser:
    """Return the options that the speed benchmarks share."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), help="only this model")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of each")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of Multi30k, raw")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # a competitor started by this script
    return parser


def need(folder: Path) -> None:
    """Stop with a message where the data is missing."""
    if not (folder / "train.en.gz").exists():
        raise SystemExit(f"skipped: no Multi30k in {folder}; give its folder with --data")
