"""How fast prediction is on a CPU, beside plain loops over torch.nn in the same run.

The first 256 sentences of Multi30k's test_2016_flickr in batches of 64, by models that each trained
for 250 updates of 1,024 tokens, so that answers have natural lengths. The competitors take turns,
a pass over the sentences each. The plain loops read the source once and the whole prefix at each
step. Tokens are those of the answers, EOS included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import common
import plain
from transduce.data.stream import BatchBlueprint, batches
from transduce.recipe import train
from transduce.recipe.prepare import Prepared
from transduce.search import Beam, Greedy
from transduce.sequences import Sequences
from transduce.train.progress import Show
from transduce.transducer import Transducer

SENTENCES, ROWS, UPDATES, TOKENS, LIMIT = 256, 64, 250, 1024, 60
SEARCHES = {"greedy": 1, "beam 5": 5}
NAMES = [f"{who} {search}" for search in SEARCHES for who in ("transduce", "torch.nn")]
WARM, EVEN = 1, 24
BOS, EOS = 1, 2


def trained(name: str, folder: Path) -> Transducer:
    """Return our model, trained at the first call."""
    run = common.WORK / f"run-{name}"
    if not (run / "report.html").exists():
        setting = common.experiment(name, max_steps=UPDATES, batch={"tokens": TOKENS}, threads=1)
        data = setting.data.model_copy(update={"test": None})
        train(setting.model_copy(update={"data": data}), folder, run, Show(quiet=True))
    return Transducer.load(run)


def ours(name: str, width: int, prepared: Prepared, folder: Path) -> Iterator[tuple[int, int, int]]:
    """Predict all sentences again and again; yield the tokens of the answers."""
    model = trained(name, folder)
    search = Beam(width=width) if width > 1 else Greedy()
    lines = [example.sources["source"] for example in prepared.test[:SENTENCES]]
    while True:
        results = model(lines, search)
        tokens = sum(len(result.tokens) for result in results)
        yield tokens, tokens, 0


def even_sources() -> Tensor:
    """Return 64 sources of the same length, of any symbols."""
    return torch.randint(
        4, common.SYMBOLS, (ROWS, EVEN), generator=torch.Generator().manual_seed(1)
    )


@torch.no_grad()
def ours_even(name: str, width: int, folder: Path) -> Iterator[tuple[int, int, int]]:
    """Answer 64 even sources again and again, with all the tokens that they may get."""
    model = trained(name, folder).model
    model.head.bias[EOS] = -1e9
    search = Beam(width=width) if width > 1 else Greedy()
    sources = {"source": Sequences.stack(list(even_sources()))}
    prompt, limit = torch.full((ROWS, 1), BOS), torch.full((ROWS,), EVEN)
    while True:
        found = search(model, model.encode(sources), prompt, limit)
        tokens = int(found.lengths[:, 0].sum())
        yield tokens, tokens, 0


def plainly(
    name: str, width: int, prepared: Prepared, even: bool
) -> Iterator[tuple[int, int, int]]:
    """Do the same with a plain loop."""
    torch.manual_seed(1)
    net = plain.build(name, common.SYMBOLS)
    weights = common.WORK / f"plain-{name}.safetensors"
    if not weights.exists():
        stream = (b for _, b in batches(prepared.train, BatchBlueprint(tokens=TOKENS), seed=1))
        for _, _ in zip(range(UPDATES), plain.train(net, stream, bf16=True), strict=False):
            pass
        save_file({key: value.clone() for key, value in net.named_parameters()}, weights)
    for key, value in load_file(weights).items():
        net.get_parameter(key).data.copy_(value)
    net.eval()
    if even:
        net.out.bias.data[EOS] = -1e9
        sources = even_sources()
        while True:
            tokens = plain_search(net, sources, torch.zeros_like(sources).bool(), width, EVEN)
            yield tokens, tokens, 0
    codec = prepared.codecs["source"]
    sources = [e.sources["source"] for e in prepared.test[:SENTENCES]]
    rows = sorted((torch.tensor([*codec.encode(s), EOS]) for s in sources), key=len)
    while True:
        tokens = 0
        for start in range(0, len(rows), ROWS):
            batch = Sequences.stack(rows[start : start + ROWS])
            tokens += plain_search(net, batch.data, ~batch.mask(), width, LIMIT)
        yield tokens, tokens, 0


@torch.no_grad()
def plain_search(net: plain.Plain, source: Tensor, hidden: Tensor, width: int, limit: int) -> int:
    """Beam search of the plain kind; return the tokens of the best answers."""
    memory = net.read(source, hidden)
    memory = tuple(part.repeat_interleave(width, 0) for part in memory)
    hidden = hidden.repeat_interleave(width, 0)
    rows = len(source)
    prefix = torch.full((rows * width, 1), BOS)
    scores = torch.full((rows, width), -torch.inf)
    scores[:, 0] = 0.0
    done = torch.zeros(rows * width, dtype=torch.bool)
    for _ in range(limit):
        log_probs = net.extend(prefix, memory, hidden).log_softmax(-1)
        log_probs[done] = -torch.inf
        log_probs[done, EOS] = 0.0
        total = (scores.view(-1, 1) + log_probs).view(rows, -1)
        scores, best = total.topk(width, 1)
        parent = (best // log_probs.shape[1] + torch.arange(rows)[:, None] * width).flatten()
        token = (best % log_probs.shape[1]).flatten()
        prefix = torch.cat([prefix[parent], token[:, None]], 1)
        done = done[parent] | (token == EOS)
        if done.all():
            break
    answers = prefix.view(rows, width, -1)[:, 0, 1:]
    ends = (answers == EOS).int().argmax(1) + 1
    return int(torch.where((answers == EOS).any(1), ends, answers.shape[1]).sum())


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measured passes of each")
    parser.add_argument(
        "--quick", action="store_true", help="without the plain beam search: minutes a pass"
    )
    parser.add_argument("--even", action="store_true", help="sources and answers of one length")
    options = parser.parse_args()
    common.need(options.data)
    if options.only:
        torch.set_num_threads(options.threads)
        prepared = common.data(options.model, options.data)
        who, _, how = options.only.partition(" ")
        width = SEARCHES[how]
        if who == "torch.nn":
            common.serve(plainly(options.model, width, prepared, options.even))
        elif options.even:
            common.serve(ours_even(options.model, width, options.data))
        else:
            common.serve(ours(options.model, width, prepared, options.data))
        return
    head = ["predicting", "tokens per CPU-s", "tokens/s", "tokens an answer", "peak RSS MB"]
    names = NAMES[:-1] if options.quick else NAMES
    for name in [options.model] if options.model else common.MODELS:
        common.data(name, options.data)
        trained(name, options.data)
        rows = []
        for competitor in common.take_turns(names, ["--model", name], WARM, options.rounds):
            cpu, wall = competitor.measure()
            length = competitor.turns[0].tokens / (ROWS if options.even else SENTENCES)
            cells = (f"{cpu:,.0f}", f"{wall:,.0f}", f"{length:.1f}", f"{competitor.peak:,}")
            rows.append([competitor.name, *cells])
        print(f"\n{common.MODELS[name]}\n\n{common.table(head, rows)}")
    print(f"\n{options.rounds} passes each; fp32; {common.machine(options.threads)}")


if __name__ == "__main__":
    main()
