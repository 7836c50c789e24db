"""What each part costs beside the plainest version of itself: forward and backward, no dropout.

The plain version is what a reader would write from the paper over torch.nn, padding computed along.
Both take turns in one process on the same rows; the table gives the median milliseconds of a pass
and how many times as fast ours is.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import common
from transduce.models.interface import (
    Bank,
    DecoderBlueprint,
    EncoderBlueprint,
    HeadBlueprint,
    Readout,
)
from transduce.sequences import Sequences
from transduce.train.memory import forget_shapes, keep_freed_memory
from transduce.train.precision import Precision

ROWS, LONGEST, WIDTH, HEADS, SYMBOLS = 64, 24, 256, 4, 8000
STEPS = {"embedding": WIDTH, "width": WIDTH, "dropout": 0.0}
LAYERS = {"width": WIDTH, "layers": 2, "heads": HEADS, "inner": 4 * WIDTH, "dropout": 0.0}
CONVOLVED = {"width": WIDTH, "layers": 2, "dropout": 0.0}
Pass = Callable[[], Tensor]  # returns what a gradient is taken of
LENGTHS = torch.linspace(LONGEST, LONGEST * 2 // 3, ROWS).long()
MASK = torch.arange(LONGEST) < LENGTHS[:, None]


class Embedded(nn.Module):
    """Token vectors and what reads them."""

    def __init__(self, **inner: nn.Module) -> None:
        super().__init__()
        self.table = nn.Embedding(SYMBOLS, WIDTH)
        self.parts = nn.ModuleDict(inner)


class Recurrent(Embedded):
    """A recurrent encoder over packed sequences."""

    def forward(self, ids: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.table(ids), LENGTHS, batch_first=True)
        states, _ = self.parts["rnn"](packed)
        return nn.utils.rnn.pad_packed_sequence(states, batch_first=True)[0]


class NormalisedLstm(Embedded):
    """A one-way LSTM that normalises its gates, cell by cell (Ba 2016)."""

    def __init__(self) -> None:
        super().__init__(
            x=nn.Linear(WIDTH, 4 * WIDTH),
            h=nn.Linear(WIDTH, 4 * WIDTH),
            norm_x=nn.LayerNorm(4 * WIDTH),
            norm_h=nn.LayerNorm(4 * WIDTH),
            norm_c=nn.LayerNorm(WIDTH),
        )

    def forward(self, ids: Tensor) -> Tensor:
        part, states = self.parts, []
        h = c = self.table.weight.new_zeros(ROWS, WIDTH)
        for x in self.table(ids).unbind(1):
            gates = part["norm_x"](part["x"](x)) + part["norm_h"](part["h"](h))
            i, f, g, o = gates.chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * part["norm_c"](c).tanh()
            states.append(h)
        return torch.stack(states, 1)


class Convolutional(Embedded):
    """Gated convolutions with residual paths (Gehring 2017); causal ones attend to the source."""

    def __init__(self, causal: bool) -> None:
        convolutions = {str(n): nn.Conv1d(WIDTH, 2 * WIDTH, 3) for n in range(2)}
        maps = {name: nn.Linear(WIDTH, WIDTH) for name in ("in", "out")}
        super().__init__(**convolutions, **maps)
        self.causal = causal
        self.place = nn.Embedding(LONGEST, WIDTH)

    def forward(self, ids: Tensor, states: Tensor | None = None) -> Tensor:
        embedded = self.table(ids) + self.place.weight
        x, pad = embedded, (2, 0) if self.causal else (1, 1)
        for name in ("0", "1"):
            h = F.glu(self.parts[name](F.pad(x.transpose(1, 2), pad)), 1).transpose(1, 2)
            if states is not None:
                query = self.parts["in"](h) + embedded
                scores = (query @ states.transpose(1, 2)).masked_fill(~MASK[:, None], -torch.inf)
                h = h + self.parts["out"](scores.softmax(-1).to(states.dtype) @ states)
            x = (x + h) * math.sqrt(0.5)
        return x if self.causal else self.parts["out"](x)


class Transformer(Embedded):
    """Layers of ``nn.TransformerEncoder``, or of the decoder where there is a source."""

    def forward(self, ids: Tensor, states: Tensor | None = None) -> Tensor:
        x = self.table(ids) * math.sqrt(WIDTH)
        if states is None:
            return self.parts["layers"](x, src_key_padding_mask=~MASK)
        causal = nn.Transformer.generate_square_subsequent_mask(LONGEST)
        return self.parts["layers"](x, states, tgt_mask=causal, memory_key_padding_mask=~MASK)


class Attending(Embedded):
    """A decoder that attends after all its steps; the scores are what differs."""

    def __init__(self, kind: str) -> None:
        maps = {name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key")}
        super().__init__(
            rnn=nn.LSTM(WIDTH, WIDTH, batch_first=True),
            begin=nn.Linear(WIDTH, WIDTH),
            combine=nn.Linear(2 * WIDTH, WIDTH),
            energy=nn.Linear(WIDTH, 1, bias=False),
            heads=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
            **maps,
        )
        self.kind = kind

    def scores(self, x: Tensor, states: Tensor) -> Tensor:
        part = self.parts
        match self.kind:
            case "dot":
                return x @ states.transpose(1, 2)
            case "general":
                return x @ part["key"](states).transpose(1, 2)
            case _:
                hidden = part["query"](x)[:, :, None] + part["key"](states)[:, None]
                return part["energy"](torch.tanh(hidden))[..., 0]

    def forward(self, ids: Tensor, states: Tensor) -> Tensor:
        first = torch.tanh(self.parts["begin"](states[:, 0]))[None]
        x, _ = self.parts["rnn"](self.table(ids), (first, torch.zeros_like(first)))
        if self.kind == "multihead":
            context, _ = self.parts["heads"](x, states, states, key_padding_mask=~MASK)
        else:
            scores = self.scores(x, states).masked_fill(~MASK[:, None], -torch.inf)
            context = scores.softmax(-1).to(states.dtype) @ states
        return torch.tanh(self.parts["combine"](torch.cat([x, context], -1)))


class Attended(Attending):
    """The same, step by step: what was attended to enters the step (Bahdanau 2015)."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.parts["cell"] = nn.LSTMCell(2 * WIDTH, WIDTH)

    def forward(self, ids: Tensor, states: Tensor) -> Tensor:
        h = torch.tanh(self.parts["begin"](states[:, 0]))
        c, features = torch.zeros_like(h), []
        for x in self.table(ids).unbind(1):
            scores = self.scores(h[:, None], states).masked_fill(~MASK[:, None], -torch.inf)
            context = (scores.softmax(-1).to(states.dtype) @ states)[:, 0]
            h, c = self.parts["cell"](torch.cat([x, context], -1), (h, c))
            features.append(self.parts["combine"](torch.cat([h, context], -1)).tanh())
        return torch.stack(features, 1)


class Copying(Embedded):
    """A pointer-generator's loss by its whole distribution (See 2017)."""

    def __init__(self) -> None:
        super().__init__(
            out=nn.Linear(WIDTH, SYMBOLS), gate=nn.Linear(2 * WIDTH, 1), key=nn.Linear(WIDTH, WIDTH)
        )

    def forward(self, features: Tensor, states: Tensor, ids: Tensor) -> Tensor:
        scores = features @ self.parts["key"](states).transpose(1, 2) / math.sqrt(WIDTH)
        weights = scores.masked_fill(~MASK[:, None], -torch.inf).float().softmax(-1)
        context = weights.to(states.dtype) @ states
        gate = self.parts["gate"](torch.cat([features, context], -1)).float().sigmoid()
        words = gate * self.parts["out"](features).float().softmax(-1)
        places = ids[:, None].expand(-1, LONGEST, -1)
        log_probs = words.scatter_add(2, places, (1 - gate) * weights).clamp_min(1e-9).log()
        smooth = -0.9 * log_probs.gather(2, ids[..., None])[..., 0] - 0.1 * log_probs.mean(-1)
        return (smooth * MASK).sum()


def part(slot: Any, kind: str, vocabulary: int, *widths: int, **facts: Any) -> Any:
    """Build a part of ours."""
    return slot.choices()[kind].model_validate(facts).build(vocabulary, *widths)


def encoders(source: Sequences) -> dict[str, tuple[Pass, Pass]]:
    """Return the encoders and their plain versions."""

    def pair(plain: nn.Module, kind: str, **facts: Any) -> tuple[Pass, Pass]:
        ours = part(EncoderBlueprint, kind, SYMBOLS, **facts)
        return lambda: ours(source).states.float().sum(), lambda: plain(source.data).float().sum()

    both = {"batch_first": True, "bidirectional": True}
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, 0.0, batch_first=True, norm_first=True
    )
    layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    half = STEPS | {"width": WIDTH // 2}
    return {
        "two-way LSTM": pair(
            Recurrent(rnn=nn.LSTM(WIDTH, WIDTH // 2, **both)), "recurrent", **half
        ),
        "two-way GRU": pair(
            Recurrent(rnn=nn.GRU(WIDTH, WIDTH // 2, **both)), "recurrent", cell="gru", **half
        ),
        "two-way plain RNN": pair(
            Recurrent(rnn=nn.RNN(WIDTH, WIDTH // 2, **both)), "recurrent", cell="tanh", **half
        ),
        "one-way LSTM, normalised": pair(
            NormalisedLstm(), "recurrent", normalised=True, bidirectional=False, **STEPS
        ),
        "Transformer encoder": pair(Transformer(layers=layers), "transformer", **LAYERS),
        "convolutional encoder": pair(Convolutional(causal=False), "convolutional", **CONVOLVED),
    }


def decoders(source: Sequences) -> dict[str, tuple[Pass, Pass]]:
    """Return the decoders over given states and their plain versions, and the copying head."""
    states = torch.randn(ROWS, LONGEST, WIDTH, requires_grad=True)
    ids = source.data
    bank = Bank(states, MASK, states[:, 0], torch.randn(ROWS, LONGEST, WIDTH), ids)

    def pair(plain: nn.Module, kind: str, **facts: Any) -> tuple[Pass, Pass]:
        ours = part(DecoderBlueprint, kind, SYMBOLS, WIDTH, **facts)
        return (
            lambda: ours(ids, {"source": bank}).features.float().sum(),
            lambda: plain(ids, states).float().sum(),
        )

    layer = nn.TransformerDecoderLayer(
        WIDTH, HEADS, 4 * WIDTH, 0.0, batch_first=True, norm_first=True
    )
    after = {f"LSTM, {kind} attention after it": kind for kind in ("dot", "general", "additive")}
    luong = {
        name: pair(Attending(kind), "recurrent", connection=kind, **STEPS)
        for name, kind in after.items()
    }
    copying, features = Copying(), torch.randn(ROWS, LONGEST, WIDTH, requires_grad=True)
    copies = part(
        HeadBlueprint, "pointer_generator", WIDTH, WIDTH, nn.Embedding(SYMBOLS, WIDTH), False
    )
    heads = {"kind": "multihead", "heads": HEADS}
    return luong | {
        "LSTM, multi-head attention after it": pair(
            Attending("multihead"), "recurrent", connection=heads, **STEPS
        ),
        "LSTM, additive attention before it": pair(
            Attended("additive"), "recurrent", connection="additive", order="before", **STEPS
        ),
        "LSTM, general attention before it": pair(
            Attended("general"), "recurrent", connection="general", order="before", **STEPS
        ),
        "Transformer decoder": pair(
            Transformer(layers=nn.TransformerDecoder(layer, 2)), "transformer", **LAYERS
        ),
        "convolutional decoder": pair(Convolutional(causal=True), "convolutional", **CONVOLVED),
        "pointer-generator, with its loss": (
            lambda: copies.loss(Readout(features), copies.start({"source": bank}), source, 0.1)[0],
            lambda: copying(features, states, ids),
        ),
    }


def seconds(run: Pass, precision: Precision) -> float:
    """Return the time of a pass forward and back."""
    begun = time.perf_counter()
    with precision.autocast(torch.device("cpu")):
        total = run()
    total.backward()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="passes of each")
    parser.add_argument("--only", nargs="+", default=[""], help="parts whose name holds this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    keep_freed_memory()
    data = torch.randint(5, SYMBOLS, (ROWS, LONGEST)) * MASK
    source = Sequences(data, LENGTHS)
    rows = []
    for name, pair in (encoders(source) | decoders(source)).items():
        if not any(wanted in name for wanted in options.only):
            continue
        cells = [name]
        for dtype in (torch.float32, torch.bfloat16):
            precision, times = Precision(dtype, "as asked"), ([], [])
            for round_ in range(options.rounds + 2):
                for run, found in zip(pair, times, strict=True):
                    forget_shapes()
                    spent = seconds(run, precision)
                    if round_ >= 2:
                        found.append(spent)
            ours, plain = map(statistics.median, times)
            cells += [f"{ours * 1e3:.1f}", f"{plain * 1e3:.1f}", f"{plain / ours:.2f}"]
        rows.append(cells)
        print(" ".join(cells), flush=True)
    head = [
        "part",
        *(f"{what} {kind}" for kind in ("fp32", "bf16") for what in ("ms", "plain", "times")),
    ]
    print("\n" + common.table(head, rows))
    size = f"{ROWS} rows of {LONGEST // 3 * 2} to {LONGEST} symbols, width {WIDTH}"
    print(f"\n{size}; {common.machine(1)}")


if __name__ == "__main__":
    main()
