"""Train the tiny models that every later version must load and answer with alike.

    python tools/make_golden.py

writes ``tests/golden/vX.Y/`` for the version X.Y that runs: model folders that reverse strings of
digits, and what they answer. A version is done once, before its release, and then kept as it is.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transduce import __version__
from transduce.blueprint import parse
from transduce.experiment import Experiment
from transduce.recipe import train
from transduce.search import Beam, Greedy
from transduce.train.progress import Show
from transduce.transducer import Result, Transducer

TARGET = Path(__file__).parents[1] / "tests" / "golden" / f"v{__version__.rpartition('.')[0]}"
MODELS = {
    "recurrent": "{kind: recurrent, embedding: 8, width: 12, dropout: 0}",
    "transformer": "{kind: transformer, width: 12, layers: 1, heads: 2, inner: 24, dropout: 0}",
}
SETTINGS = """
data: {train: {kind: tsv, path: train.tsv}, dev: {kind: tsv, path: dev.tsv}}
text: {source: {tokens: characters}}
train:
  max_steps: 1200
  batch: {tokens: 400}
  optimiser: {rate: 1e-2, schedule: {kind: cosine, warmup: 100}}
  threads: 1
  precision: fp32
  log_every: 400
validation: {every: 400, average: false}
search: {kind: beam, width: 4}
metrics: [exact]
"""
ASKED = ["1", "42", "007", "90210", "31415", "271828", "", "99 bottles"]


def main() -> None:
    """Train, then write down what the models answer."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        os.environ["TRANSDUCE_CACHE"] = str(work / "cache")
        write_data(work)
        TARGET.mkdir(parents=True)
        for name, part in MODELS.items():
            changes = [f"model.encoder={part}", f"model.decoder={part}"]
            train(parse(SETTINGS, Experiment, overrides=changes), work, work / name, Show())
            shutil.copytree(work / name / "model", TARGET / name)
            lines = map(json.dumps, answered(Transducer.load(TARGET / name, device="cpu")))
            (TARGET / f"{name}.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_data(work: Path) -> None:
    """Write strings of up to five digits, and what they are from back to front."""
    draw = random.Random(1)
    strings = {"".join(draw.choices("0123456789", k=draw.randint(1, 5))) for _ in range(4000)}
    rows = [f"{string}\t{string[::-1]}\n" for string in sorted(strings)]
    draw.shuffle(rows)
    (work / "dev.tsv").write_text("".join(rows[:100]), encoding="utf-8")
    (work / "train.tsv").write_text("".join(rows[100:]), encoding="utf-8")


def answered(model: Transducer) -> Iterator[dict[str, object]]:
    """Yield what is kept of the answers, all that a search found for a source together."""
    for search in (Greedy(), Beam(width=4)):
        more = 2 if isinstance(search, Beam) else 0
        for answer in model(ASKED, search, alternatives=more):
            found = [kept(other) for other in (answer, *answer.alternatives)]
            yield {"search": search.kind, "source": answer.source, "found": found}


def kept(answer: Result) -> dict[str, object]:
    """Return what is kept of an answer."""
    return {
        "text": answer.text,
        "finished": answer.finished,
        "score": round(answer.score, 6),
        "log_probs": [round(token.log_prob, 6) for token in answer.tokens],
    }


if __name__ == "__main__":
    main()
