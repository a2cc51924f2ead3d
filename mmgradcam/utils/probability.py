"""Log-probabilities of a softmax whose value and gradient stay exact where the probability is close to 1."""

from __future__ import annotations

import torch
from torch import Tensor


def log_prob(logits: Tensor, index: Tensor, contrast: Tensor | None = None) -> Tensor:
    """Log-probabilities under a softmax, exact also where the probability is close to 1.

    log p_t = log sigmoid(z_t - log sum_{j != t} exp z_j), which equals `logits.log_softmax(-1)` at t. A log-softmax computes
    the gradient 1 - p_t by subtracting from 1, so that in float32 nothing but rounding is left of it where 1 - p_t < 1e-6.
    Here 1 - p_t is a sum over the other classes: value and gradient (1 - p_t at t, -p_j elsewhere) have a relative error of a
    few roundings times max(1, |log(1 - p_t)|) until 1 - p_t leaves the floating-point range. Can be differentiated twice.

    Args:
        logits: z, (..., N); half precision is converted to float32 first.
        index: t, (...) integers in 0..N - 1.
        contrast: u, (...) integers in 0..N - 1, or -1 where there is no other class: log p_t - log p_u = z_t - z_u instead.

    Returns:
        (...) log-probabilities, <= 0, or their differences; float64 where the logits are, else float32.

    >>> z = torch.tensor([0.0, 25.0])
    >>> f"{log_prob(z, torch.tensor(1)):.4g}, {z.log_softmax(-1)[1]:.4g}"
    '-1.389e-11, 0'
    """
    logits, index = full(logits), index[..., None]
    own = logits.gather(-1, index).squeeze(-1)
    alone = torch.nn.functional.logsigmoid(own - others(logits, index).logsumexp(-1))
    if contrast is None:
        return alone
    other = logits.gather(-1, contrast.clamp(min=0)[..., None]).squeeze(-1)
    return torch.where(contrast >= 0, own - other, alone)


def others(logits: Tensor, index: Tensor) -> Tensor:
    """Logits (..., N) without the class `index` (..., 1), which gets the lowest finite value: a probability of 0, never NaN."""
    return logits.scatter(-1, index, torch.finfo(logits.dtype).min)


def full(tensor: Tensor) -> Tensor:
    """Half precision as float32; other tensors as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
