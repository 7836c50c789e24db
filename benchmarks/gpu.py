"""How fast a GPU trains and predicts, beside the rate at which it multiplies bf16 matrices.

Training is the toolkit's own loop over random batches of sentences of like length (10 to 60
symbols, 32,000 of each language), in bf16. Its operations are those that real tokens need, source
and target: three times those of the forward pass, which are two for each weight of a product, and
those of attention. Padding, norms, dropout and the optimiser count nothing. Tokens are those of the
target, EOS included. Predicting is greedy search and beam search of random models that may not end
an answer before its limit. The last table is about steps alone, greedy and without a search: what
fixed states, and a graph of a step, would bring. Without a GPU this says so and ends with exit code
2; `--device cpu --tiny` shows that all of it runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import common
from transduce import tree
from transduce.data.batch import Batch
from transduce.data.stream import START, Position
from transduce.models.build import ModelBlueprint, build
from transduce.models.interface import Memory
from transduce.models.seq2seq import Seq2Seq
from transduce.search import AtLeast, Beam, Greedy, StepwiseSearch
from transduce.sequences import Sequences
from transduce.text.vocabulary import BOS, EOS, SPECIALS
from transduce.train.compiled import compile_layers
from transduce.train.loop import Plan, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import OptimiserBlueprint
from transduce.train.precision import Precision

NO_GPU = 2  # the exit code that says so
MODELS = {
    "base Transformer, 6+6, width 512": ("transformer", 512),
    "big Transformer, 6+6, width 1024": ("transformer", 1024),
    "LSTM, 2+2, width 1024, attention over all positions at once": ("lstm", 1024),
}
SEARCHES: dict[str, StepwiseSearch] = {"greedy": Greedy(), "beam 4": Beam(width=4)}
# What lies over the positions of the source, though it is part of the decoder.
OF_SOURCE = ("cross_attention.key_value", "connection.key")


class Sizes(NamedTuple):
    """How much is done."""

    symbols: int = 32_000
    tokens: int = 25_000  # of the target in a batch
    shrink: int = 1  # what widths are divided by
    layers: int = 6
    product: int = 8192  # rows and columns of the matrices whose product is timed
    updates: int = 20
    warm: int = 5
    rows: tuple[int, ...] = (1, 64, 512)
    limit: int = 64  # tokens of an answer


TINY = Sizes(50, 120, 16, 1, 64, 2, 1, (1, 3), 9)


def blueprint(kind: str, width: int, sizes: Sizes) -> ModelBlueprint:
    """Return one of the models; all embeddings of a Transformer are tied."""
    width //= sizes.shrink
    if kind == "lstm":
        part = {"kind": "recurrent", "embedding": width, "width": width, "layers": 2}
        return ModelBlueprint.model_validate({"encoder": part, "decoder": part, "tie": "output"})
    heads = {"heads": max(1, width // 64), "inner": 4 * width, "layers": sizes.layers}
    part = {"kind": "transformer", "width": width, **heads}
    return ModelBlueprint.model_validate({"encoder": part, "decoder": part, "tie": "all"})


def made(name: str, sizes: Sizes) -> Seq2Seq:
    """Return one of the models with random weights, on the CPU."""
    torch.manual_seed(1)
    counts = {"source": sizes.symbols, "target": sizes.symbols}
    return build(blueprint(*MODELS[name], sizes), counts)


def random_batches(sizes: Sizes, number: int) -> list[Batch]:
    """Return batches of sentences of like length, as sorting makes them."""
    generator = torch.Generator().manual_seed(1)

    def text(length: int) -> Tensor:
        ids = torch.randint(len(SPECIALS), sizes.symbols, (length,), generator=generator)
        ids[-1] = EOS
        return ids

    def near(length: int, count: int) -> list[int]:
        lengths: list[int] = torch.randint(
            length - 2, length + 3, (count,), generator=generator
        ).tolist()
        return lengths

    found, begin = [], torch.tensor([BOS])
    for length in islice(cycle(range(10, 61, 10)), number):
        count = max(1, sizes.tokens // length)
        source = Sequences.stack([text(n) for n in near(length, count)])
        target = Sequences.stack([torch.cat([begin, text(n)]) for n in near(length, count)])
        found.append(Batch({"source": source}, target, torch.arange(count)))
    return found


def operations(model: Seq2Seq, batch: Batch) -> float:
    """Return the floating-point operations that an update with this batch cannot do without."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    source, target = (x.lengths.double() for x in (batch.sources["source"], batch.labels))
    read, said = float(source.sum()), float(target.sum())
    total = 2.0 * model.decoder.embedding.weight.numel() * said  # the output layer
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and id(weight) not in tables and "bridge" not in name:
            over_source = name.startswith("encoders") or any(part in name for part in OF_SOURCE)
            total += 2.0 * weight.numel() * (read if over_source else said)
    across = float((source * target).sum())
    layers = getattr(model.decoder, "layers", None)
    if layers is None:  # recurrent: one attention, to the source
        return 3 * (total + 4 * model.decoder.width * across)
    within = float((source**2).sum() + (target**2).sum() / 2)
    return 3 * (total + 4 * len(layers) * model.decoder.width * (within + across))


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def matrix_rate(sizes: Sizes, device: torch.device) -> float:
    """Return the operations per second of products of large bf16 matrices: the best of ten."""
    left, right = (
        torch.randn(sizes.product, sizes.product, dtype=torch.bfloat16, device=device)
        for _ in range(2)
    )
    best = float("inf")
    for _ in range(10):
        wait(device)
        begun = time.perf_counter()
        for _ in range(5):
            left @ right
        wait(device)
        best = min(best, time.perf_counter() - begun)
    return 5 * 2 * sizes.product**3 / best


def training(name: str, sizes: Sizes, device: torch.device, compiling: bool) -> tuple[float, float]:
    """Return target tokens and operations per second."""
    learner = Learner(made(name, sizes).to(device), CrossEntropyBlueprint().build())
    if compiling:
        compile_layers(learner.model)
    optimiser = OptimiserBlueprint()
    precision = Precision(torch.bfloat16, "as printed")
    plan = Plan(optimiser, 10**9, 1, 1, device, precision)
    batches = random_batches(sizes, sizes.warm + sizes.updates)

    def stream() -> Iterator[tuple[Position, Batch]]:
        for number, batch in enumerate(batches):
            yield Position(0, number), batch

    updates = steps(TrainState(learner, optimiser.build(learner), START), stream(), plan)
    for _ in range(sizes.warm):
        next(updates)
    wait(device)
    begun = time.perf_counter()
    for _ in range(sizes.updates):
        next(updates)
    wait(device)
    seconds = time.perf_counter() - begun
    measured = batches[sizes.warm :]
    tokens = sum(batch.tokens for batch in measured)
    return tokens / seconds, sum(operations(learner.model, b) for b in measured) / seconds


def predicting(
    model: Seq2Seq, search: StepwiseSearch, rows: int, sizes: Sizes, device: torch.device
) -> float:
    """Return the tokens of answers per second; every answer is as long as it may be."""
    scorer = AtLeast(model, lambda lengths: torch.full_like(lengths, sizes.limit + 1))
    source = Sequences.stack(
        [torch.randint(len(SPECIALS), sizes.symbols, (30,)) for _ in range(rows)]
    ).to(device)
    prompt = torch.full((rows, 1), BOS, device=device)
    limit = torch.full((rows,), sizes.limit, device=device)
    seconds = []
    for _ in range(3):
        wait(device)
        begun = time.perf_counter()
        with torch.inference_mode():
            found = search(scorer, scorer.encode({"source": source}), prompt, limit)
        wait(device)
        seconds.append(time.perf_counter() - begun)
    assert int(found.lengths[:, 0].sum()) == rows * sizes.limit
    return rows * sizes.limit / min(seconds)


class FixedStep:
    """Greedy steps whose tensors stay where they are, so a GPU can be told all of one at once.

    States of a fixed capacity are written in place; what is made anew is copied back.
    """

    def __init__(self, model: Seq2Seq, memory: Memory, prompt: Tensor, capacity: int) -> None:
        self.model, self.again = model, self.step
        log_probs, self.state = model.extend(prompt, model.start(memory, capacity=capacity))
        self.tokens = log_probs[:, -1:].argmax(2)

    def step(self) -> None:
        """Read the last tokens and choose the next."""
        log_probs, after = self.model.extend(self.tokens, self.state)
        for (kept, _), (made_, _) in zip(tree.leaves(self.state), tree.leaves(after), strict=True):
            if kept.data_ptr() != made_.data_ptr():
                kept.copy_(made_)
        self.tokens.copy_(log_probs[:, -1:].argmax(2))

    def capture(self) -> None:
        """Record a step as a graph, which ``again`` replays."""
        places = [self.tokens, *(leaf for leaf, _ in tree.leaves(self.state))]
        before = [place.clone() for place in places]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        for place, was in zip(places, before, strict=True):
            place.copy_(was)
        self.again = graph.replay

    def run(self, count: int) -> Tensor:
        """Return the next tokens of every row."""
        found = [self.tokens.clone()]
        for _ in range(count - 1):
            self.again()
            found.append(self.tokens.clone())
        return torch.cat(found, 1)


def growing(model: Seq2Seq, memory: Memory, prompt: Tensor, count: int) -> Tensor:
    """Return the same tokens, from a state that grows."""
    log_probs, state = model.extend(prompt, model.start(memory))
    found = [log_probs[:, -1:].argmax(2)]
    for _ in range(count - 1):
        log_probs, state = model.extend(found[-1], state)
        found.append(log_probs[:, -1:].argmax(2))
    return torch.cat(found, 1)


@torch.no_grad()
def stepping(model: Seq2Seq, rows: int, sizes: Sizes, device: torch.device) -> list[str]:
    """Return tokens/s of steps with states that grow, with fixed ones, and as a graph.

    The last of them is left out on a CPU; the tokens must be those of the first.
    """
    source = Sequences.stack(
        [torch.randint(len(SPECIALS), sizes.symbols, (30,)) for _ in range(rows)]
    ).to(device)
    memory = model.encode({"source": source})
    prompt, count = torch.full((rows, 1), BOS, device=device), sizes.limit
    wanted, cells = growing(model, memory, prompt, count), []
    for way in ("grow", "fixed", "graph") if device.type == "cuda" else ("grow", "fixed"):
        work = partial(growing, model, memory, prompt)
        if way != "grow":
            steps_ = FixedStep(model, memory, prompt, count + 1)
            if way == "graph":
                steps_.capture()
            work = steps_.run
        wait(device)
        begun = time.perf_counter()
        found = work(count)
        wait(device)
        speed = rows * count / (time.perf_counter() - begun)
        alike = float((found == wanted).float().mean())
        cells.append(f"{speed:,.0f}" if alike == 1 else f"{speed:,.0f} ({alike:.1%} alike)")
    return cells


def step_table(sizes: Sizes, device: torch.device) -> str:
    """Return the table of steps."""
    ways = ["states that grow", "fixed states", "a graph"][: 3 if device.type == "cuda" else 2]
    rows = []
    for name in MODELS:
        model = made(name, sizes).to(device).eval()
        rows += [[f"{name}, batch {n}", *stepping(model, n, sizes, device)] for n in sizes.rows]
    return common.table(["steps one by one, fp32, tokens/s", *ways], rows)


def train_table(sizes: Sizes, device: torch.device, rate: float, compiling: bool) -> str:
    """Return the table of training."""
    rows = []
    for name in MODELS:
        for compiled in [False, True] if compiling and "Transformer" in name else [False]:
            label = f"{name}, layers compiled" if compiled else name
            try:
                tokens, done = training(name, sizes, device, compiled)
            except Exception as error:
                if not compiled:
                    raise
                rows.append([label, *["not compiled"] * 2, str(error).split("\n")[0][:80]])
                continue
            share = f"{done / rate:.0%}"
            rows.append([label, f"{tokens:,.0f}", f"{done / 1e12:.3g}", share])
    return common.table(["training, bf16", "tokens/s", "TFLOP/s", "of the matrix rate"], rows)


def predict_table(sizes: Sizes, device: torch.device) -> str:
    """Return the table of predicting."""
    rows = []
    for name in MODELS:
        model = made(name, sizes).to(device).eval()
        for kind, search in SEARCHES.items():
            for half in (False, True):
                with torch.autocast(device.type, torch.bfloat16, half):
                    speeds = [predicting(model, search, n, sizes, device) for n in sizes.rows]
                label = f"{name}, {kind}, {'bf16' if half else 'fp32'}"
                rows.append([label, *(f"{speed:,.0f}" for speed in speeds)])
    return common.table(["predicting, tokens/s", *(f"batch {n}" for n in sizes.rows)], rows)


def main(given: Sequence[str] | None = None) -> int:
    """Print the tables; return an exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the same in seconds, for tests")
    parser.add_argument("--compile", action="store_true", help="also with compiled layers")
    options = parser.parse_args(given)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU here; --device cpu --tiny shows that all of this runs")
        return NO_GPU
    device, sizes = torch.device(options.device), TINY if options.tiny else Sizes()
    rate = matrix_rate(sizes, device)
    what: Any = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{what}; {time.strftime('%Y-%m-%d')}; torch {torch.__version__}")
    print(f"bf16 products of {sizes.product}: {rate / 1e12:.3g} TFLOP/s\n")
    print(train_table(sizes, device, rate, options.compile), end="\n\n")
    print(predict_table(sizes, device), end="\n\n")
    print(step_table(sizes, device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
