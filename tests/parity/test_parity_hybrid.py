"""The hybrid encoder against torch's recurrent and Transformer layers, each row on its own."""

from __future__ import annotations

import pytest
import torch
from test_parity_layers import copy_attention, copy_feed_forward, copy_norms, shake
from torch import nn

from transduce.models.encoders.hybrid import HybridEncoderBlueprint
from transduce.models.encoders.transformer import EncoderLayer
from transduce.nn.layers import NormOrder
from transduce.nn.recurrent import Bidirectional
from transduce.nn.steps import Cell
from transduce.sequences import Sequences

WIDTH, HEADS, INNER, DEPTH, VOCABULARY = 12, 3, 20, 2, 9
CELLS: tuple[Cell, ...] = ("lstm", "gru")
ORDERS: tuple[NormOrder, ...] = ("pre", "post")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("order", ORDERS)
def test_hybrid_encoder_equals_torch(cell: Cell, order: NormOrder) -> None:
    torch.manual_seed(1)
    facts = {"width": WIDTH, "heads": HEADS, "inner": INNER, "recurrent_layers": DEPTH}
    blueprint = HybridEncoderBlueprint.model_validate(facts | {"cell": cell, "norm": order})
    ours = blueprint.build(VOCABULARY).eval()
    shake(ours)
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    reader = kind(WIDTH, WIDTH // 2, DEPTH, batch_first=True, bidirectional=True)
    assert isinstance(ours.reader, Bidirectional)
    for depth in range(DEPTH):
        for suffix, parts in (("", ours.reader.forwards), ("_reverse", ours.reader.backwards)):
            for name, value in parts[depth].named_parameters():
                target = reader.get_parameter(name.replace("_l0", f"_l{depth}{suffix}"))
                target.data.copy_(value)
    (layer,) = ours.layers
    assert isinstance(layer, EncoderLayer)
    before = order == "pre"
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, INNER, 0.0, batch_first=True, norm_first=before
    )
    shake(theirs)
    copy_attention(layer.self_attention, theirs.self_attn)
    copy_feed_forward(layer.feed_forward, theirs.linear1, theirs.linear2)
    copy_norms([(layer.around_self, theirs.norm1), (layer.around_feed, theirs.norm2)])

    source = Sequences(torch.randint(0, VOCABULARY, (3, 7)), torch.tensor([7, 3, 5]))
    bank = ours(source)
    for row, length in enumerate(source.lengths.tolist()):
        vectors = ours.embedding.weight[source.data[row : row + 1, :length]] * WIDTH**0.5
        expected = ours.norm(theirs(reader(vectors)[0]))[0]
        torch.testing.assert_close(bank.states[row, :length], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(bank.summary[row], expected.mean(0), atol=1e-5, rtol=0)
