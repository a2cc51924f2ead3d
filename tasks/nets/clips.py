"""A small net of 3D convolutions that tells how something moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn


class ClipEncoder(nn.Module):
    """(B, 3, T, h, w) -> (B, C, T / 2, h / 4, w / 4): fine enough to tell where, at every second frame when.

    Args:
        widths: channels of its blocks; the first two halve height and width, the second halves time.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 64)) -> None:
        super().__init__()
        strides = [(1, 2, 2), (2, 2, 2), *[(1, 1, 1)] * (len(widths) - 2)]
        ins = [3, *widths[:-1]]
        self.blocks = nn.Sequential(*(_block(i, o, s) for i, o, s in zip(ins, widths, strides, strict=True)))
        self.channels = widths[-1]

    def forward(self, clips: Tensor) -> Tensor:
        features: Tensor = self.blocks(clips)
        return features


class SliceHead(nn.Module):
    """Every moment tells the class by the cells that say it most, and the mean over time decides.

    So the evidence lies where something moves, in every frame: a mean over all of time and place could do with a few frames.

    Args:
        channels: C of the features.
        classes: how many.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Conv3d(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.moments(features).mean(2)
        return scores

    def moments(self, features: Tensor) -> Tensor:
        """(B, C, t, rows, columns) -> (B, classes, t) scores of each moment, a soft maximum over place."""
        said: Tensor = self.out(features).flatten(3)
        return said.logsumexp(3) - math.log(said.shape[3])


def _block(ins: int, outs: int, stride: tuple[int, int, int]) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm3d(outs), nn.ReLU())
