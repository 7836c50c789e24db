"""From scores to weights that are never negative and add up to one; all take (..., S).

The sparse ones give exactly zero to what scores low. Which positions get something is found by
sorting, without gradient; the threshold is then a smooth function of those positions alone, so
autograd's gradient is the exact one.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_softmax(
    scores: Float[Tensor, "*B S"], mask: Bool[Tensor, "*B S"]
) -> Float[Tensor, "*B S"]:
    """Softmax over the positions in the mask; the others get exactly zero."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(-1, dtype=scores.dtype)


def sparsemax(scores: Float[Tensor, "*B S"], mask: Bool[Tensor, "*B S"]) -> Float[Tensor, "*B S"]:
    """The point of the simplex that is nearest to the scores (Martins & Astudillo 2016)."""
    z = _shifted(scores, mask)
    ranked = z.detach().sort(-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    size = (1 + count * ranked > ranked.cumsum(-1)).sum(-1, keepdim=True)
    support = z.detach() >= ranked.gather(-1, size - 1)
    number = support.sum(-1, keepdim=True)
    threshold = (torch.where(support, z, 0).sum(-1, keepdim=True) - 1) / number
    return torch.where(support, z - threshold, 0).clamp(min=0).to(scores.dtype)


def entmax15(scores: Float[Tensor, "*B S"], mask: Bool[Tensor, "*B S"]) -> Float[Tensor, "*B S"]:
    """The 1.5-entmax, half way between softmax and sparsemax (Peters 2019)."""
    z = _shifted(scores, mask) / 2
    ranked = z.detach().sort(-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    mean, square = ranked.cumsum(-1) / count, ranked.square().cumsum(-1) / count
    inside = ((1 - count * (square - mean.square())) / count).clamp(min=0)
    size = (mean - inside.sqrt() <= ranked).sum(-1, keepdim=True)
    support = z.detach() >= ranked.gather(-1, size - 1)
    number = support.sum(-1, keepdim=True)
    mean = torch.where(support, z, 0).sum(-1, keepdim=True) / number
    spread = torch.where(support, (z - mean).square(), 0).sum(-1, keepdim=True)
    threshold = mean - ((1 - spread) / number).clamp(min=1e-12).sqrt()
    return torch.where(support, (z - threshold).clamp(min=0).square(), 0).to(scores.dtype)


def _shifted(scores: Float[Tensor, "*B S"], mask: Bool[Tensor, "*B S"]) -> Float[Tensor, "*B S"]:
    """Return the scores below their maximum, in at least 32 bits; what is masked, far below."""
    z = scores.to(torch.promote_types(scores.dtype, torch.float32))
    z = z.masked_fill(~mask, -torch.inf)
    # nothing further than 2 below the best gets any weight; the bound keeps the squares small
    return (z - z.detach().amax(-1, keepdim=True)).clamp(min=-4)
