"""Transduce in the relay of peers: speaks the JSON lines of a shared benchmark library.

    BENCH=../shared/bench python benchmarks/run_transduce.py speed A

``benchlib.py`` in the folder BENCH says what is measured and lets toolkits take turns; its token
files (one joint 8,000-piece BPE) are used as they are, so that all toolkits see the same tokens.
PRECISION=bf16 measures that type instead of fp32.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, os.environ.get("BENCH", str(Path(__file__).parents[2] / "shared" / "bench")))

import benchlib as bench  # type: ignore[import-not-found]
import torch
from safetensors.torch import load_file, save_file

import common
from transduce.data.batch import Batch
from transduce.data.read import ParallelBlueprint
from transduce.data.store import Encoding, LimitsBlueprint, Store, prepare
from transduce.data.stream import START, BatchBlueprint, batches, by_length
from transduce.models.build import build
from transduce.models.seq2seq import Seq2Seq
from transduce.search import Beam, Greedy
from transduce.sequences import Sequences
from transduce.text.codec import CodecBlueprint, TextCodec
from transduce.text.tokenise import WordsBlueprint
from transduce.text.vocabulary import BOS, EOS
from transduce.train.checkpoint import load_tensors, tensors
from transduce.train.loop import Plan, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import InverseSquareRoot, OptimiserBlueprint
from transduce.train.precision import Precision

ROWS = 64
BF16 = os.environ.get("PRECISION") == "bf16"
PEER = "transduce" + (" bf16" if BF16 else "")


def corpus(role: str) -> ParallelBlueprint:
    """Return a corpus of token files."""
    return ParallelBlueprint(source=f"{role}.en", target=f"{role}.de")


def codec() -> TextCodec:
    """Return the vocabulary that all peers share: every piece is a word to us."""
    pieces = (bench.DATA / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return TextCodec.learn(CodecBlueprint(tokens=WordsBlueprint()), filter(None, pieces))


def train(name: str, words: TextCodec, tokens: int, updates: int, what: str) -> Seq2Seq:
    """Make updates under the meter; report them."""
    torch.manual_seed(bench.SEED)
    model = build(common.model(name), {"source": words.size, "target": words.size})
    bench.emit(PEER, name, "params", bench.count_params(model), "parameters")
    optimiser = OptimiserBlueprint(
        rate=bench.LR, schedule=InverseSquareRoot(warmup=bench.WARMUP), betas=(0.9, 0.98)
    )
    precision = Precision(torch.bfloat16 if BF16 else torch.float32, "as named")
    plan = Plan(optimiser, updates, 1, bench.SEED, torch.device("cpu"), precision)
    learner = Learner(model, CrossEntropyBlueprint().build())
    state = TrainState(learner, optimiser.build(learner), START)
    both = {"source": words, "target": words}
    store = prepare(
        corpus("train"), bench.DATA, Encoding(both, LimitsBlueprint()), common.WORK / "cache"
    )
    meter = bench.Meter().install()
    for update in steps(state, metered(store, tokens, meter), plan):
        meter.add_loss(update.total / update.tokens)
    batch = f"{tokens} max(src,tgt) padded tokens, sorted by length"
    meter.report(PEER, name, what, batch=batch)
    return model


def metered(
    store: Store, tokens: int, meter: bench.Meter
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """Yield the batches and tell the meter of each."""
    for position, batch in batches(store, BatchBlueprint(tokens=tokens), bench.SEED):
        source = int(batch.sources["source"].lengths.sum())
        meter.add(batch.tokens, batch.labels.data.numel(), len(batch), source)
        yield position, batch


def decode(name: str, words: TextCodec, weights: Path) -> None:
    """Predict the test set, greedily and by beam search."""
    model = build(common.model(name), {"source": words.size, "target": words.size}).eval()
    load_tensors(model, load_file(weights), weights)
    lines = (bench.DATA / f"{bench.TEST}.en").read_text(encoding="utf-8").split("\n")
    rows = [torch.tensor([*words.encode(line), EOS]) for line in lines if line]
    order = by_length(torch.tensor([len(row) for row in rows]).numpy(), 10**6, ROWS)

    def run(search: Greedy | Beam) -> list[str]:
        found = [""] * len(rows)
        for batch in order:
            sources = {"source": Sequences.stack([rows[row] for row in batch])}
            prompt = torch.full((len(batch), 1), BOS)
            limit = torch.full((len(batch),), bench.MAXLEN)
            with torch.no_grad():
                best = search(model, model.encode(sources), prompt, limit)
            for row, ids, length in zip(batch, best.tokens[:, 0], best.lengths[:, 0], strict=True):
                kept = [id for id in ids[:length].tolist() if id != EOS]
                found[row] = " ".join(words.pieces(kept))
        return found

    for mode, search in (("greedy", Greedy()), ("beam5", Beam(width=5))):
        times, cpus, answers = bench.timed(lambda search=search: run(search))
        bench.decode_report(PEER, name, mode, times, cpus, answers, name=PEER.replace(" ", "-"))


def main() -> None:
    what, name = bench.args()
    torch.set_num_threads(bench.THREADS)
    words = codec()
    weights = bench.MODELS / f"transduce-{name}.safetensors"
    if what == "speed":
        train(name, words, bench.BATCH_TOKENS, bench.WARM + bench.STEPS, "train_speed")
    elif what == "train":
        model = train(name, words, bench.TRAIN_TOKENS, bench.TRAIN_STEPS, "train_train")
        save_file(tensors(model), weights)
    else:
        decode(name, words, weights)


if __name__ == "__main__":
    main()
