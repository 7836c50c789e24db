"""A Transformer that others trained (OpenNMT-tf, kept by CTranslate2) scores alike in our parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ctranslate2_file import read_weights
from torch import Tensor

from transduce.models.build import ModelBlueprint, build
from transduce.models.seq2seq import Seq2Seq
from transduce.search import Beam, Greedy
from transduce.search.score import force
from transduce.sequences import Sequences

LAYERS = 6
STACK = {"kind": "transformer", "width": 32, "layers": LAYERS, "heads": 8, "inner": 128}
POSITIONS = {"kind": "tensor2tensor", "first": 1}
BEGIN, END = "<s>", "</s>"

# as CTranslate2 4.8.5 answers
SOURCE, TARGET = "آتزمون", "atzmon"
LOG_PROBS = [-0.106023, -0.065411, -0.056003, -0.447953, -0.230714, -0.092183, -0.063463]
BEST_FOUR = {"atzmon": -0.15167, "atzumon": -0.26603, "atzmun": -0.33511, "atzemon": -0.36614}


class Foreign:
    """The model in our parts, with its two alphabets."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = (
            (folder / f"{side}_vocabulary.txt")
            .read_text(encoding="utf-8")
            .removesuffix("\n")
            .split("\n")
            for side in ("source", "target")
        )
        # the last row of each table is for what is in no alphabet
        sizes = {"source": len(self.source) + 1, "target": len(self.target) + 1}
        part = STACK | {"positions": POSITIONS}
        facts = {"encoder": part, "decoder": part, "tie": "none"}
        self.model: Seq2Seq = build(ModelBlueprint.model_validate(facts), sizes).eval()
        weights = read_weights(folder / "model.bin")
        self.model.load_state_dict(dict(renamed(weights)))  # strict: nothing missing, nothing over

    def sources(self, text: str) -> dict[str, Sequences]:
        """Encode letter by letter; this model was trained without a symbol for the end."""
        ids = torch.tensor([self.source.index(letter) for letter in text])
        return {"source": Sequences.stack([ids])}

    def prompt(self) -> Tensor:
        """Return what every target begins with."""
        return torch.tensor([[self.target.index(BEGIN)]])


def renamed(weights: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under our names."""
    norm = {"gamma": "weight", "beta": "bias"}
    linear = {"weight": "weight", "bias": "bias"}
    for ours, theirs in (("encoders.source", "encoder"), ("decoder", "decoder")):
        yield f"{ours}.embedding.weight", weights[f"{theirs}/embeddings/weight"]
        for end, name in norm.items():
            yield f"{ours}.norm.norm.{name}", weights[f"{theirs}/layer_norm/{end}"]
        parts = {
            "around_self.norm": ("self_attention/layer_norm", norm),
            "self_attention.query_key_value": ("self_attention/linear_0", linear),
            "self_attention.out": ("self_attention/linear_1", linear),
            "around_feed.norm": ("ffn/layer_norm", norm),
            "feed_forward.0": ("ffn/linear_0", linear),
            "feed_forward.3": ("ffn/linear_1", linear),
        }
        if theirs == "decoder":
            parts |= {
                "around_cross.norm": ("attention/layer_norm", norm),
                "cross_attention.query": ("attention/linear_0", linear),
                "cross_attention.key_value": ("attention/linear_1", linear),
                "cross_attention.out": ("attention/linear_2", linear),
            }
        for layer in range(LAYERS):
            for part, (place, names) in parts.items():
                for end, name in names.items():
                    found = weights[f"{theirs}/layer_{layer}/{place}/{end}"]
                    yield f"{ours}.layers.{layer}.{part}.{name}", found
    yield "head.weight", weights["decoder/projection/weight"]
    yield "head.bias", weights["decoder/projection/bias"]


@pytest.fixture
def foreign(shared: Callable[[str], Path]) -> Foreign:
    return Foreign(shared("pretrained_small/aren_transliteration_ct2"))


@torch.no_grad()
def test_each_letter_is_as_likely(foreign: Foreign) -> None:
    model = foreign.model
    ids = torch.tensor([[[foreign.target.index(letter) for letter in [*TARGET, END]]]])
    memory = model.encode(foreign.sources(SOURCE))
    found = force(model, memory, foreign.prompt(), ids, torch.tensor([[ids.shape[2]]]))
    assert found[0, 0].tolist() == pytest.approx(LOG_PROBS, abs=1e-5)


@torch.no_grad()
def test_letter_by_letter_too(foreign: Foreign) -> None:
    model = foreign.model
    tokens = [foreign.target.index(letter) for letter in [BEGIN, *TARGET, END]]
    for capacity in (None, len(tokens)):
        state = model.start(model.encode(foreign.sources(SOURCE)), 1, capacity)
        for before, after, wanted in zip(tokens, tokens[1:], LOG_PROBS, strict=False):
            log_probs, state = model.extend(torch.tensor([[before]]), state)
            assert float(log_probs[0, 0, after]) == pytest.approx(wanted, abs=1e-5)


def test_searches_find_the_same(foreign: Foreign) -> None:
    model = foreign.model
    memory, limit = model.encode(foreign.sources(SOURCE)), torch.tensor([20])
    for search in (Greedy(), Beam(width=4, n_best=4)):
        found = search(model, memory, foreign.prompt(), limit)
        answers = {
            "".join(foreign.target[id_] for id_ in ids[: length - 1]): score
            for ids, length, score in zip(
                found.tokens[0].tolist(),
                found.lengths[0].tolist(),
                found.scores[0].tolist(),
                strict=True,
            )
        }
        assert next(iter(answers)) == TARGET
        if isinstance(search, Beam):
            assert list(answers) == list(BEST_FOUR)
            assert answers == pytest.approx(BEST_FOUR, abs=1e-4)
