"""Gradients in the precision they are computed in: kept in its range, and known where they are below its rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmgradcam.utils.probability import full

UNIT = "log-probability"
"""`Task.unit` of scores that are log-probabilities."""
ROUNDED = 8
"""Roundings of 1 below which 1 - p, if it was computed by subtracting from 1, is mostly rounding: its error is over 6%."""


def lost(unit: str, scores: Tensor, arrived: Sequence[Tensor], activations: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(n,) bool: rows whose gradients are below the rounding of what they were computed from, at some place.

    - The largest gradient is below the smallest normal number of the precision it arrived in, or of float32 in the units of
      the score: what is smaller has lost its digits.
    - The score is a log-probability that was computed by subtracting from 1, of which fewer than 8 roundings are left (see
      `rounded`), and all of the features move it by less than 2 ** -6 to first order (sum |A G|: of a contrast of
      two log-probabilities, which may be 0 as well, they move more).
    """
    found = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    for raw, (_, true) in zip(arrived, activations, strict=True):
        came, peak = _peaks(raw, 1), _peaks(true, 1)
        small = (came > 0) & ((came < torch.finfo(raw.dtype).tiny) | (peak < torch.finfo(true.dtype).tiny))
        found |= small.to(found.device)
    near = rounded(scores) if unit == UNIT else None
    if near is not None and (near.device.type != "cpu" or bool(near.any())):
        x, true = activations[0]
        moved = (x * true).detach().abs().flatten(1).sum(1)
        found |= near & (moved < 2**-6).to(found.device)
    return found


def _peaks(gradients: Tensor, dims: int) -> Tensor:
    """The largest magnitude in each of the rows that the first `dims` dimensions number."""
    rows = gradients.detach().flatten(dims)
    return torch.maximum(rows.amax(-1), -rows.amin(-1))


def times(rows: Tensor, powers: Tensor) -> Tensor:
    """Rows (*R, ...) times two to the powers (*R)."""
    return rows * torch.exp2(powers).to(rows).view(*powers.shape, *[1] * (rows.dim() - powers.dim()))


def initial(unit: str, scores: Tensor) -> Tensor:
    """Powers of two that bring the gradients of scores to about 1."""
    if unit != UNIT:
        return torch.zeros_like(scores, dtype=torch.float32)
    return exponents(scores).clamp(max=math.frexp(torch.finfo(scores.dtype).max)[1] - 1)


def kept_in_range(
    work: Callable[[Tensor], Sequence[Tensor | None]], powers: Tensor, leaves: int
) -> tuple[Sequence[Tensor | None], Tensor]:
    """A backward of rows times two to the powers (*R); in float16, whose range is narrow, with powers at which they fit.

    Args:
        work: the backward, powers -> gradients (*R, ...) of each of its inputs.
        powers: to begin with.
        leaves: how many of the inputs are to stay in range.

    Returns:
        The gradients, and the powers they are multiplied by.
    """
    found = work(powers)
    halves = [i for i, g in enumerate(found[:leaves]) if g is not None and g.dtype == torch.float16]
    if not halves:
        return found, powers
    low, overflowed = 2.0**-8, torch.zeros_like(powers, dtype=torch.bool)  # 6 binary digits above where digits get lost
    for _ in range(6):
        peaks = torch.stack([_peaks(g, powers.dim()).to(powers.device) for i in halves if (g := found[i]) is not None])
        over = ~torch.isfinite(peaks).all(0)
        overflowed |= over
        under = (peaks < low).any(0) & ~overflowed
        if not bool((over | under).any()):
            return found, powers
        powers = (powers + 8 * under.float() - 8 * over.float()).clamp(max=126)
        found = work(powers)
    return found, powers


def exponents(log_probs: Tensor) -> Tensor:
    """Exponents e of powers of two that bring the gradient of log p, of size 1 - p, to the size of 1.

    Args:
        log_probs: (...) log p.

    Returns:
        (...) float32 integers in 0..126, such that 2 ** e (1 - p) is in 0.5..1; 0 where p is 1, or more, as of a contrast.

    >>> exponents(torch.tensor([-1e-6, -3.0, 0.0, 2.0])).tolist()
    [19.0, 0.0, 0.0, 0.0]
    """
    rest = -torch.expm1(full(log_probs.detach()).clamp(max=0.0))
    return (-torch.frexp(rest).exponent).clamp(0, 126).float()


def rounded(log_probs: Tensor) -> Tensor:
    """Whether log-probabilities were computed by subtracting from 1, which left fewer than `ROUNDED` roundings of 1 - p.

    They then are 0 or whole multiples of half the machine epsilon, as those of `log_softmax` are; one of `log_prob` is by
    chance in 1 of 100,000. Half precision is computed in float32 by log-softmax, and rounded.

    Args:
        log_probs: (...) log p.

    Returns:
        (...) bool.

    >>> from mmgradcam.utils.probability import log_prob
    >>> z = torch.tensor([[0.0, 16.0]])
    >>> rounded(z.log_softmax(-1)[:, 1]).item(), rounded(log_prob(z, torch.tensor([1]))).item()
    (True, False)
    """
    own = torch.finfo(log_probs.dtype).eps
    wide = full(log_probs.detach())
    one = torch.finfo(wide.dtype)
    steps = -wide / (one.eps / 2)
    whole = (steps - steps.round()).abs() <= steps * min(6 * own, 2**-7)
    return (whole & (steps <= 2 * ROUNDED)) | (wide.abs() < one.tiny)
