"""The pointer-generator head: it says a symbol of the vocabulary or copies one of the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transduce.models.heads import LinearHead
from transduce.models.interface import Head, HeadBlueprint, Memory, Readout
from transduce.nn.attend import GeneralAttention, fold, masked_softmax
from transduce.nn.loss import CHUNK
from transduce.nn.tap import Tap
from transduce.sequences import Sequences
from transduce.tree import PerSource

TINY = torch.finfo(torch.float32).tiny


class PointerGeneratorBlueprint(HeadBlueprint):
    """Says a symbol of the vocabulary or copies one of the source; needs text.joint."""

    copies: ClassVar[bool] = True

    kind: Literal["pointer_generator"] = "pointer_generator"
    new_words: int = Field(0, ge=0)
    """different symbols of a source that the vocabulary does not hold and that can be copied"""

    @property
    def slots(self) -> int:
        """As many as new words."""
        return self.new_words

    def build(
        self, width: int, memory: int, embedding: nn.Embedding, tied: bool
    ) -> PointerGenerator:
        """Make the head."""
        return PointerGenerator(width, memory, embedding, tied, self.slots)


@dataclass(frozen=True)
class Copyable(PerSource):
    """What can be copied, and how it is found."""

    keys: Float[Tensor, "B S D"]
    hints: Float[Tensor, "B S"]  # how much each position speaks for generating
    mask: Bool[Tensor, "B S"]
    ids: Int[Tensor, "B S"]


class PointerGenerator(Head):
    """p(w) = g p_vocabulary(w) + (1 - g) sum of a_i where the source says w (See 2017).

    The attention a is the head's own (score s . W h / sqrt(D)) and not that of the decoder, which
    may have none, or one for each layer and head, and has to look also at what nobody would copy.
    As in the paper, g = sigmoid(u . s + v . c + b) sees the decoder's features s, into which the
    token read last has gone, and the context c, the mean of the states by a.

    Symbols behind the vocabulary number what is new in each source; they can only be copied.
    """

    def __init__(
        self, width: int, memory: int, embedding: nn.Embedding, tied: bool, slots: int = 0
    ) -> None:
        super().__init__()
        self.slots = slots
        self.words = LinearHead(width, embedding, tied)
        self.attention = GeneralAttention(width, memory)
        self.gate, self.hint = nn.Linear(width, 1), nn.Linear(memory, 1, bias=False)
        self.copied = Tap("copying")

    def start(self, memory: Memory) -> Copyable:
        """Compute keys and hints."""
        bank = memory["source"]
        if bank.ids is None:
            raise ValueError("only symbols can be copied, and this source has none")
        # v . c is the mean by a of v . h, which is one number for each position.
        hints = self.hint(bank.states)[..., 0]
        return Copyable(self.attention.keys(bank.states), hints, bank.mask.clone(), bank.ids)

    def forward(self, out: Readout, source: Copyable) -> Float[Tensor, "N T V"]:
        """Return log-probabilities."""
        gate, pointed = self._point(out.features, source)
        words = F.logsigmoid(gate) + self.words(out, None)
        words = F.pad(words, (0, self.slots), value=-torch.inf)
        ids = source.ids[:, None].expand(-1, len(pointed) // len(source.ids) * gate.shape[1], -1)
        folded = fold(pointed, len(source.ids))
        empty = folded.new_zeros(*folded.shape[:2], words.shape[2])
        copied = empty.scatter_add(2, ids, folded).view(words.shape)
        # Where nothing is copied, the logarithm of 0 would have no gradient.
        log_copied = copied.clamp_min(TINY).log().masked_fill(copied == 0, -torch.inf)
        return torch.logaddexp(words, log_copied)

    def loss(
        self,
        out: Readout,
        source: Copyable,
        labels: Sequences,
        smoothing: float,
        weights: Float[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the summed loss and negative log-likelihood over the real positions alone.

        Smoothing spreads what the vocabulary would say: of what can be copied, only the true
        symbol is ever right.
        """
        gate, pointed = self._point(out.features, source)
        ids = source.ids.repeat_interleave(len(pointed) // len(source.ids), 0)
        mass = (pointed * (ids[:, None] == labels.data[..., None])).sum(2)
        real = labels.mask().flatten().nonzero()[:, 0]
        log_copied = mass.clamp_min(TINY).log()
        columns = (out.features, F.logsigmoid(gate), log_copied[..., None], labels.data[..., None])
        rows = [column.flatten(0, 1).index_select(0, real) for column in columns]
        each = None if weights is None else weights.flatten().index_select(0, real)
        loss = nll = gate.new_zeros(())
        for number, part in enumerate(zip(*(torch.split(x, CHUNK) for x in rows), strict=True)):
            missed, spread = checkpoint(
                self._chunk, *part, use_reentrant=False, preserve_rng_state=False
            )
            nll = nll + missed.sum()
            if each is not None:
                own = each[number * CHUNK : (number + 1) * CHUNK]
                missed, spread = missed * own, spread * own
            loss = loss + (1 - smoothing) * missed.sum() + smoothing * spread.sum()
        return loss, nll.detach()

    def _point(
        self, features: Float[Tensor, "N T D"], source: Copyable
    ) -> tuple[Float[Tensor, "N T 1"], Float[Tensor, "N T S"]]:
        """Return the logit of g, and how likely each source position is copied."""
        rows, count, width = features.shape
        query = fold(features, len(source.ids)) * width**-0.5
        scores = self.attention.score(query, source.keys).float()
        weights = masked_softmax(scores, source.mask[:, None])
        context = torch.bmm(weights, source.hints.float()[..., None])
        gate = self.gate(features).float() + context.view(rows, count, 1)
        return gate, self.copied(weights.view(rows, count, -1) * torch.sigmoid(-gate))

    def _chunk(
        self,
        features: Float[Tensor, "M D"],
        generate: Float[Tensor, "M 1"],
        copied: Float[Tensor, "M 1"],
        labels: Int[Tensor, "M 1"],
    ) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"]]:
        """Return -log p of each label and the mean -log p of the vocabulary there."""
        words = self.words(Readout(features[None]), None)[0]
        new = labels >= words.shape[1]
        said = words.gather(1, labels.masked_fill(new, 0)).masked_fill(new, -torch.inf)
        right = torch.logaddexp(generate + said, copied)
        return -right[:, 0], -words.mean(1)
