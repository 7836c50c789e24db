"""How fast training is on a CPU, beside plain loops over torch.nn in the same run.

All competitors are processes of their own that take turns update by update, so that they meet the
same noise, and learn from the same batches: 4096 tokens (the longer side times the rows, padding
included), sorted by length. Tokens are real target tokens, EOS included.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

import common
import plain
from transduce.data.batch import Batch
from transduce.data.stream import START, BatchBlueprint, batches
from transduce.models.build import build
from transduce.recipe.prepare import Prepared
from transduce.train.loop import Plan, TrainState, steps
from transduce.train.objective import CrossEntropyBlueprint, Learner
from transduce.train.optimise import InverseSquareRoot, OptimiserBlueprint
from transduce.train.parallel import ALONE, Group
from transduce.train.precision import Precision

NAMES = ("transduce fp32", "torch.nn fp32", "transduce bf16", "torch.nn bf16")
WARM = 2
BATCH = 4096


def ours(
    name: str,
    prepared: Prepared,
    bf16: bool,
    tokens: int = BATCH,
    warmup: int = 400,
    group: Group = ALONE,
) -> Iterator[tuple[int, int, float]]:
    """Make updates with the toolkit's own loop; yield the tokens, slots and loss of each."""
    torch.manual_seed(1)
    learner = Learner(
        build(common.model(name), {"source": common.SYMBOLS, "target": common.SYMBOLS}),
        CrossEntropyBlueprint().build(),
    )
    optimiser = OptimiserBlueprint(schedule=InverseSquareRoot(warmup=warmup))
    precision = Precision(torch.bfloat16 if bf16 else torch.float32, "as named")
    plan = Plan(optimiser, 10**9, 1, 1, torch.device("cpu"), precision)
    slots: list[int] = []

    def stream() -> Iterator[tuple[tuple[int, int], Batch]]:
        for position, batch in batches(prepared.train, BatchBlueprint(tokens=tokens), seed=1):
            slots.append(batch.labels.data.numel())
            yield position, batch

    state = TrainState(learner, optimiser.build(learner), START)
    for update in steps(state, stream(), plan, group):
        yield update.tokens, slots.pop(), float(update.total) / update.tokens


def compete(name: str, competitor: str, prepared: Prepared) -> Iterator[tuple[int, int, float]]:
    """Return the updates of a competitor."""
    bf16 = competitor.endswith("bf16")
    if competitor.startswith("transduce"):
        return ours(name, prepared, bf16)
    torch.manual_seed(1)
    stream = (b for _, b in batches(prepared.train, BatchBlueprint(tokens=BATCH), seed=1))
    return plain.train(plain.build(name, common.SYMBOLS), stream, bf16)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--updates", type=int, default=12, help="measured updates of each")
    options = parser.parse_args()
    common.need(options.data)
    if options.only:
        torch.set_num_threads(options.threads)
        common.serve(compete(options.model, options.only, common.data(options.model, options.data)))
        return
    head = ["training", "tokens per CPU-s", "tokens/s", "fill", "loss", "peak RSS MB"]
    for name in [options.model] if options.model else common.MODELS:
        common.data(name, options.data)
        found = common.take_turns(NAMES, ["--model", name], WARM, options.updates)
        rows = []
        for competitor in found:
            cpu, wall = competitor.measure()
            fill = sum(t.tokens for t in competitor.turns) / sum(t.slots for t in competitor.turns)
            loss = competitor.turns[-1].note
            cells = (f"{cpu:,.0f}", f"{wall:,.0f}", f"{fill:.3f}", f"{loss:.2f}")
            rows.append([competitor.name, *cells, f"{competitor.peak:,}"])
        print(f"\n{common.MODELS[name]}\n\n{common.table(head, rows)}")
    print(f"\n{options.updates} updates each; {common.machine(options.threads)}")


if __name__ == "__main__":
    main()
