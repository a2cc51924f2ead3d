"""A small net of 3D convolutions that tells how something moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClipEncoder(nn.Module):
    """(B, 3, T, h, w) -> (B, C, T, h / 4, w / 4): a moment's features, weighed by how much each place is not as it usually is.

    The median over time is what a place usually looks like. The difference from it is seen beside the frames, and its mean over
    a cell and those around, in 0..1 of the frame's largest, weighs the features: without that, what is most telling lies
    where something has just been or is about to be. Kernels of stride 2 are even, so that a cell's middle stays where it is.

    Args:
        widths: channels of its blocks; the first two halve height and width and look one frame back and ahead.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 64)) -> None:
        super().__init__()
        ins = [6, *widths[:-1]]
        self.blocks = nn.Sequential(*(_block(i, o, n < 2) for n, (i, o) in enumerate(zip(ins, widths, strict=True))))
        self.channels = widths[-1]

    def forward(self, clips: Tensor) -> Tensor:
        features: Tensor = self.blocks(torch.cat([clips, _unusual(clips)], 1))
        return features * self.weights(clips)

    def weights(self, clips: Tensor) -> Tensor:
        """(B, 3, T, h, w) -> (B, 1, T, h / 4, w / 4) in 0..1: how much each place is not as it usually is."""
        cells = F.avg_pool3d(_unusual(clips).abs().sum(1, keepdim=True), (1, 4, 4))
        around = F.avg_pool3d(cells, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
        return around / around.amax((3, 4), keepdim=True).clamp(min=1e-6)


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


def _unusual(clips: Tensor) -> Tensor:
    return clips - clips.median(2, keepdim=True).values


def _block(ins: int, outs: int, halves: bool) -> nn.Sequential:
    size, stride, pad = ((3, 4, 4), (1, 2, 2), (1, 1, 1)) if halves else ((1, 3, 3), (1, 1, 1), (0, 1, 1))
    return nn.Sequential(nn.Conv3d(ins, outs, size, stride, pad, bias=False), nn.BatchNorm3d(outs), nn.ReLU())
