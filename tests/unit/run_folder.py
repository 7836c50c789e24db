"""A run folder as training leaves it: sentences of the E2E corpus, numbers made up."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONFIGURATION = """\
name: e2e                     # What the run is called.
seed: 1
model:
  encoder:
    kind: recurrent           # (recurrent, transformer)
    width: 256                # Width of each direction.
    layers: 1
    dropout: 0.3
  decoder:
    kind: transformer
    width: 256
    heads: 4
  head: {kind: linear, tied: true}
source:
  tokenise: {kind: words}
  normalise: ["nfc", "don't # ask"]
train:
  steps: 5000
  tokens: 4096                # Target tokens in a batch.
  learning_rate: 1e-3
"""

ENVIRONMENT = {
    "transduce": "0.1.0",
    "python": "3.12.4",
    "torch": "2.13.0",
    "cpu": "Intel Xeon Platinum 8481C",
    "cores": 2,
    "threads": 2,
    "precision": "bfloat16",
    "platform": "Linux x86_64",
    "command": "transduce train recipes/e2e.yaml",
    "started": "2026-11-20T09:14:03+00:00",
    "git": {"commit": "5e91316", "clean": True},
}

DATA = {
    "train": {
        "examples": 42061, "source_tokens": 1120341, "target_tokens": 1021774,
        "longest_source": 44, "longest_target": 78, "unknown_source": 0, "unknown_target": 312,
        "skipped": {"empty": 0, "longer than 100 tokens": 3},
    },
    "dev": {
        "examples": 4672, "source_tokens": 127411, "target_tokens": 117233,
        "longest_source": 43, "longest_target": 71, "unknown_source": 4, "unknown_target": 187,
    },
    "test": {"examples": 630, "source_tokens": 19480, "unknown_source": 31},
    "source_vocabulary": 103,
    "target_vocabulary": 2311,
    "parameters": 2_418_432,
}  # fmt: skip

SCORES: dict[str, Any] = {
    "test": {
        "bleu": {
            "name": "BLEU", "value": 66.34, "low": 64.9, "high": 67.7, "segments": 630,
            "signature": "nrefs:var|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp"
            "|version:2.6.0", "higher_is_better": True,
        },
        "rouge": {"value": 68.9, "low": 67.8, "high": 70.1, "signature": "nrefs:var|measure:f"},
        "ter": {"value": 41.2, "low": 39.6, "high": 42.9, "higher_is_better": False},
    },
    "published": [
        {"name": "TGen (Novikova et al., 2017)", "metric": "bleu", "value": 65.93},
        {"name": "Gehrmann et al. (2018)", "metric": "BLEU", "value": 66.2},
        {"name": "Shen et al. (2019)", "metric": "bleu", "value": 68.60},
        {"name": "TGen (Novikova et al., 2017)", "metric": "rouge", "value": 68.50},
    ],
}  # fmt: skip

# source, references, and what was predicted at each validation
EXAMPLES: list[tuple[str, list[str], list[str]]] = [
    (
        "name[Clowns], eatType[coffee shop], food[English], customer rating[5 out of 5],"
        " area[riverside], near[Clare Hall]",
        [
            "Clowns is a 5 star coffee shop located near Clare Hall.",
            "Clowns is an English coffee shop by the riverside near Clare Hall, rated 5 out of 5.",
            "Near Clare Hall, by the river, Clowns serves English food. It is rated 5 out of 5.",
        ],
        [
            "The The is a a restaurant.",
            "The Eagle is a coffee shop near the.",
            "Clowns is a coffee shop near Clare Hall.",
            "Clowns is a coffee shop near Clare Hall in the riverside area.",
            "Clowns is a coffee shop near Clare Hall in the riverside area.",
            "Clowns is an English coffee shop in the riverside area near Clare Hall.",
            "Clowns is an English coffee shop by the riverside near Clare Hall, rated 5 out of 5.",
            "Clowns is an English coffee shop by the riverside near Clare Hall, rated 5 out of 5.",
        ],
    ),
    (
        "name[The Eagle], eatType[coffee shop], food[Chinese], priceRange[high],"
        " customer rating[1 out of 5], area[riverside], familyFriendly[yes], near[Burger King]",
        [
            "The Eagle is a high-priced coffee shop near the Burger King in Riverside. The Eagle"
            " offers coffee and Chinese food; it is child friendly and has a low customer rating."
        ],
        [
            "",
            "The Eagle is a restaurant restaurant in the city centre.",
            "The Eagle is a Chinese coffee shop in the riverside area.",
            "The Eagle is a Chinese coffee shop near Burger King. It is kids friendly.",
            "The Eagle is a high priced Chinese coffee shop near Burger King. It is kids friendly.",
            "The Eagle is a high priced, kid friendly Chinese coffee shop near Burger King.",
            "The Eagle is a high priced, kid friendly Chinese coffee shop near Burger King in"
            " riverside. It has a customer rating of 1 out of 5.",
            "The Eagle is a high priced, kid friendly coffee shop near Burger King in riverside."
            " It serves Chinese food and has a customer rating of 1 out of 5.",
        ],
    ),
    (
        "name[Aromi], eatType[coffee shop], food[Chinese], customer rating[average],"
        " area[city centre], familyFriendly[no]",
        ["Aromi is an average rated coffee shop that serves Chinese food in the city center"],
        ["The is a."] * 2
        + ["Aromi is a coffee shop."] * 3
        + ["Aromi is an average rated Chinese coffee shop in the city centre."] * 3,
    ),
    (
        "ordre : ouvrir la porte / 打开门",
        ["打开左边的门，然后走进去。"],
        ["门", "打开门。", "打开右边的门。", "打开右边的门，走进去。"]
        + ["打开左边的门，走进去。"] * 2
        + ["打开左边的门，然后走进去。"] * 2,
    ),
    (
        "open the left door, then go in",
        ["افتح الباب الأيسر ثم ادخل"],
        ["الباب", "افتح الباب", "افتح الباب الأيمن", "افتح الباب الأيسر"]
        + ["افتح الباب الأيسر ثم ادخل"] * 4,
    ),
]

ATTENTION = [
    (
        "name [ Clowns ] eatType [ coffee shop ] food [ English ] area [ riverside ] </s>",
        "Clowns is an English coffee shop in the riverside area . </s>",
        [2, 0, 0, 11, 6, 7, 14, 14, 15, 13, 17, 17],
    ),
    ("open the left door , then go in", "افتح الباب الأيسر ثم ادخل </s>", [0, 3, 2, 5, 6, 7]),
    (
        "▁turn ▁left ▁twice ▁and ▁jump",
        "向 左 转 两 次 ， 然 后 跳 </s>",
        [1, 1, 0, 2, 2, 3, 3, 3, 4, 4],
    ),
]


def write_run(folder: Path, finished: bool = True, steps: int = 4000) -> Path:
    """Fill ``folder`` with a run that validates every 500 steps."""
    chance = random.Random(3)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.yaml").write_text(CONFIGURATION, encoding="utf-8")
    _json(folder / "environment.json", ENVIRONMENT)
    _json(folder / "data.json", DATA)
    lines(folder / "train.jsonl", course(chance, steps))
    samples = [
        {"step": 500 * (at + 1), "index": i, "source": s, "references": r, "prediction": p[at]}
        for at in range(8)
        for i, (s, r, p) in enumerate(EXAMPLES)
    ]
    lines(folder / "samples.jsonl", samples)
    maps = [_attention(chance, s.split(), t.split(), peaks) for s, t, peaks in ATTENTION]
    _json(folder / "attention.json", maps)
    if finished:
        _json(folder / "scores.json", SCORES)
    return folder


def course(chance: random.Random, steps: int = 4000) -> list[dict[str, Any]]:
    """Return records such as training writes: a falling loss with noise, validations between."""
    records: list[dict[str, Any]] = []
    seconds, tokens = 0.0, 0
    for step in range(10, steps + 1, 10):
        speed = 9400 + 500 * math.sin(step / 300) + chance.gauss(0, 260)
        seconds, tokens = seconds + 10 * 2900 / speed, tokens + 10 * 2900
        nll = 0.62 + 4.6 * math.exp(-step / 320) + 0.5 * math.exp(-step / 2000)
        nll += chance.gauss(0, 0.045)
        records.append(
            {
                "kind": "step", "step": step, "epoch": step * 2900 // 1021774, "loss": nll + 0.31,
                "nll": nll, "learning_rate": 1e-3 * min(step / 400, (400 / step) ** 0.5),
                "gradient_norm": 0.8 + math.exp(-step / 200) * 6 + abs(chance.gauss(0, 0.15)),
                "tokens": tokens, "tokens_per_second": speed, "seconds": seconds,
            }
        )  # fmt: skip
        if step % 500 == 0:
            seconds += 9
            loss = 0.83 + 1.4 * math.exp(-step / 500) + max(0, step - 3000) * 2e-5
            scores = {"loss": loss, "bleu": 67.1 - 52 * math.exp(-step / 700) - (step == 4000)}
            best = step <= 3500
            validation = {"kind": "validation", "step": step, "scores": scores, "best": best}
            records.append({**validation, "seconds": seconds})
    return records


def lines(path: Path, records: Sequence[object]) -> None:
    """Write one JSON value a line."""
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in records)
    path.write_text(text, encoding="utf-8", newline="\n")


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _attention(
    chance: random.Random, source: list[str], target: list[str], peaks: list[int]
) -> dict[str, Any]:
    """Return weights that are highest at the given source place of each target piece."""
    weights = []
    for peak in peaks:
        raw = [math.exp(-abs(x - peak) * 1.7 + chance.gauss(0, 0.5)) for x in range(len(source))]
        weights.append([value / sum(raw) for value in raw])
    return {"source": source, "target": target, "weights": weights}
