"""What a model looked at, read from outside by one parallel pass over a finished prediction."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from transduce.models.seq2seq import Seq2Seq
from transduce.nn.tap import watch
from transduce.sequences import Sequences


@torch.no_grad()
def source_attention(
    model: Seq2Seq, sources: Mapping[str, Sequences], inputs: Sequences
) -> Float[Tensor, "B T S"] | None:
    """Return where the decoder looked at each position, averaged over its layers and heads.

    None for a decoder that has no attention. Rows sum to 1 over the real source positions (to
    0 where monotonic attention has walked beyond them).
    """
    with watch(model, "source attention") as seen:
        model.decoder(model.readable(inputs.data), model.encode(sources))
    maps = [weights.float() for passes in seen.values() for weights in passes]
    flat = [weights.mean(1) if weights.dim() == 4 else weights for weights in maps]
    return torch.stack(flat).mean(0) if flat else None


@torch.no_grad()
def copying(
    model: Seq2Seq, sources: Mapping[str, Sequences], inputs: Sequences
) -> Float[Tensor, "B T S"] | None:
    """Return how likely what follows each position is copied from each source position.

    None for a head that does not copy. Rows sum to the probability that anything is copied.
    """
    with watch(model, "copying") as seen:
        if seen:
            model.extend(inputs.data, model.start(model.encode(sources)))
    return next((passes[0] for passes in seen.values()), None)


def looks(
    model: Seq2Seq, sources: Mapping[str, Sequences], said: Sequences, begin: int
) -> tuple[Float[Tensor, "B T S"] | None, Float[Tensor, "B T S"] | None]:
    """Read finished predictions again; return where the model looked for each symbol, and copied.

    ``begin`` is the symbol that stood before them.
    """
    first = torch.full_like(said.data[:, :1], begin)
    inputs = Sequences(torch.cat([first, said.data[:, :-1]], 1), said.lengths)
    return source_attention(model, sources, inputs), copying(model, sources, inputs)
