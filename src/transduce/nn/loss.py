"""Output projection and cross-entropy in one: the (tokens, V) table never exists as a whole.

Label smoothing spreads ``smoothing`` evenly over all V symbols (Szegedy 2016), as torch does.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Rows of logits alive at a time: more fall out of a CPU's cache, fewer starve its products.
CHUNK = 512
# Elsewhere a product begins at a price: half a gigabyte of logits of 32,000 symbols.
LARGE_CHUNK = 4096


def linear_cross_entropy(
    features: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"],
    labels: Int[Tensor, "M"],
    smoothing: float,
    weights: Float[Tensor, "M"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the summed (label-smoothed loss, negative log-likelihood) in nats.

    ``weights`` are what the loss of each row counts; the second result leaves them out. Under
    autocast the matrix products run in its type, the softmax in float32. Only the first
    result carries a gradient.
    """
    device = features.device.type
    if torch.is_autocast_enabled(device):
        features = features.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        loss, nll = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            features, weight, bias, labels, smoothing, weights
        )
    return loss, nll


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients while the logits of a chunk are at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        smoothing: float,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad)
        symbols = weight.shape[0]
        table = weight.to(features.dtype)
        d_features = torch.empty_like(features) if wanted else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if wanted else None
        loss = features.new_zeros((), dtype=torch.float32)
        nll = features.new_zeros((), dtype=torch.float32)
        size = CHUNK if features.device.type == "cpu" else LARGE_CHUNK
        for start in range(0, len(features), size):
            chunk = features[start : start + size]
            label = labels[start : start + size, None]
            logits = (chunk @ table.t()).float().add_(bias)
            best = logits.amax(1, keepdim=True)
            total, chosen = logits.sum(1, keepdim=True), logits.gather(1, label)
            probabilities = logits.sub_(best).exp_()
            norm = probabilities.sum(1, keepdim=True)
            log_norm = norm.log() + best
            nll += (log_norm - chosen).sum()
            missed = log_norm - (1 - smoothing) * chosen - smoothing / symbols * total
            own = None if weights is None else weights[start : start + size, None]
            loss += (missed if own is None else missed * own).sum()
            if d_features is not None and d_weight is not None and d_bias is not None:
                delta = probabilities.div_(norm).sub_(smoothing / symbols)
                delta.scatter_add_(1, label, delta.new_full(label.shape, smoothing - 1))
                if own is not None:
                    delta.mul_(own)
                d_bias += delta.sum(0)
                delta = delta.to(features.dtype)
                d_features[start : start + size] = delta @ table
                _add_product(d_weight, delta.t(), chunk)
        ctx.save_for_backward(d_features, d_weight, d_bias)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        d_features, d_weight, d_bias = ctx.saved_tensors
        scale = grads[0]
        return d_features * scale, d_weight.mul_(scale), d_bias * scale, None, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, in one pass where the types allow it."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
