"""The convolutional decoder with attention in every layer (Gehring 2017)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from transduce.models.interface import Bank, Decoder, DecoderBlueprint, Memory, Readout
from transduce.nn.attend import DotAttention, Prepared, Trail
from transduce.nn.convolution import GatedConvolution, add, divide_gradient
from transduce.nn.dropout import Dropout
from transduce.nn.layers import TokenTable, projection
from transduce.nn.positions import Sinusoid
from transduce.nn.recompute import recomputable
from transduce.nn.tap import Tap


class ConvolutionalDecoderBlueprint(DecoderBlueprint):
    """Gated convolutions over the target so far, each followed by attention to the source."""

    kind: Literal["convolutional"] = "convolutional"
    width: int = Field(256, ge=2, multiple_of=2)
    """width of every position"""
    layers: int = Field(4, ge=1)
    """number of layers; the last sees layers * (kernel - 1) + 1 positions"""
    kernel: int = Field(3, ge=2)
    """positions that a convolution sees: a token and those before it"""
    dropout: float = Field(0.2, ge=0, lt=1)
    """share of values dropped while training"""

    def build(self, vocabulary: int, memory: int) -> ConvolutionalDecoder:
        """Make the decoder."""
        return ConvolutionalDecoder(self, vocabulary, memory)


class ConvolutionalState(NamedTuple):
    """What the kernels still see of the past, and the source as all layers see it."""

    length: Int[Tensor, "N"]
    past: tuple[Float[Tensor, "N P D"], ...]  # last kernel - 1 inputs of each layer
    source: Prepared | None  # None: there is none


class ConvolutionalDecoder(Decoder[ConvolutionalState]):
    """Its state never grows: a layer needs the last kernel - 1 of its inputs.

    Keys are the encoder's states, values these plus the vectors of the tokens, for every layer the
    same. As our vectors have unit variance, scores are divided by sqrt(D) (Vaswani 2017). Where
    there is no source, the layers are convolutions alone (Dauphin 2017).
    """

    def __init__(
        self, blueprint: ConvolutionalDecoderBlueprint, vocabulary: int, memory: int
    ) -> None:
        super().__init__()
        self.width, self.kernel = blueprint.width, blueprint.kernel
        self.embedding = TokenTable(vocabulary, blueprint.width)
        self.place = Sinusoid(blueprint.width)
        self.dropout = Dropout(blueprint.dropout)
        same = memory in (0, blueprint.width)
        self.bring = nn.Identity() if same else nn.Linear(memory, blueprint.width, bias=False)
        self.layers = nn.ModuleList(
            DecoderLayer(blueprint, reads=memory > 0) for _ in range(blueprint.layers)
        )
        self.reads = memory > 0

    def start(
        self, memory: Memory, width: int = 1, capacity: int | None = None
    ) -> ConvolutionalState:
        """Begin with zeros before the first token, whatever the capacity."""
        bank = memory["source"]
        states = bank.states
        rows = len(states) * width
        past = tuple(
            states.new_zeros(rows, self.kernel - 1, self.width) for _ in range(len(self.layers))
        )
        length = torch.zeros(rows, dtype=torch.long, device=states.device)
        return ConvolutionalState(length, past, self._prepare(bank) if self.reads else None)

    def _prepare(self, bank: Bank) -> Prepared:
        # The gradients of all layers meet in the encoder, but not in the vectors of its tokens.
        keys = divide_gradient(bank.states, len(self.layers))
        values = keys if bank.embedded is None else add(keys, bank.embedded)
        # The mean of S independent values has 1/S of their variance.
        many = bank.mask.sum(1)[:, None, None].to(keys.dtype).sqrt()
        return Prepared(self.bring(values) * many, bank.mask, self.bring(keys))

    def extend(
        self, tokens: Int[Tensor, "N T"], state: ConvolutionalState
    ) -> tuple[Readout, ConvolutionalState]:
        """Read T more tokens in every row."""
        count = tokens.shape[1]
        place = state.length[:, None] + torch.arange(count, device=tokens.device)
        embedded = self.dropout(self.place(self.embedding(tokens), place))
        x, past = embedded, []
        for layer, before in zip(self.layers, state.past, strict=True):
            seen = torch.cat([before.to(x.dtype), x], 1)
            past.append(seen[:, count:])
            x = add(x, recomputable(layer)(seen, embedded, state.source))
        new = ConvolutionalState(state.length + count, tuple(past), state.source)
        return Readout(self.dropout(x)), new


class DecoderLayer(nn.Module):
    """A gated convolution and attention to the source, the query helped by the token's vector."""

    def __init__(self, blueprint: ConvolutionalDecoderBlueprint, reads: bool) -> None:
        super().__init__()
        width = blueprint.width
        self.convolution = GatedConvolution(width, blueprint.kernel, blueprint.dropout)
        if reads:
            self.query, self.out = projection(width, width), projection(width, width)
            self.attend = DotAttention()
            self.weights = Tap("source attention")

    def forward(
        self, x: Float[Tensor, "N P D"], embedded: Float[Tensor, "N T D"], source: Prepared | None
    ) -> Float[Tensor, "N T D"]:
        """Read T positions, of which the first sees P - T others."""
        x = self.convolution(x)
        if source is None:
            return x
        query = add(self.query(x), embedded) * x.shape[-1] ** -0.5
        context, weights, _ = self.attend(query, source, Trail())
        self.weights(weights)
        return add(x, self.out(context))
