"""Maps of the same targets at several target layers, made one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mean", "product"]


def product(maps: Sequence[Tensor]) -> Tensor:
    """Heat where every target layer has heat: the positive parts, each scaled to a maximum of 1, multiplied on the finest grid.

    Args:
        maps: one (K, *grid) per target layer; grids may differ in size.

    Returns:
        (K, *finest grid), 0..1.
    """
    return reduce(torch.mul, _aligned(maps))


def mean(maps: Sequence[Tensor]) -> Tensor:
    """The mean of the positive parts, each scaled to a maximum of 1, on the finest grid.

    Args:
        maps: one (K, *grid) per target layer; grids may differ in size.

    Returns:
        (K, *finest grid), 0..1.
    """
    return torch.stack(_aligned(maps)).mean(0)


_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _aligned(maps: Sequence[Tensor]) -> list[Tensor]:
    finest = max((tuple(m.shape[1:]) for m in maps), key=lambda grid: torch.Size(grid).numel())
    aligned = []
    for m in maps:
        m = m.clamp(min=0)
        top = m.flatten(1).amax(1).view(-1, *[1] * (m.dim() - 1))
        m = m / torch.where(top > 0, top, torch.ones_like(top))
        aligned.append(F.interpolate(m[:, None], size=finest, mode=_MODES[len(finest)], align_corners=False).squeeze(1))
    return aligned
