"""A small residual CNN with a top-down path: a fine feature grid that still knows the whole picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


def halve(inputs: int, outputs: int) -> nn.Conv2d:
    """Half the grid, with an even kernel: a new cell lies amid the four it replaces, so that maps do not shift."""
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)


class Block(nn.Module):
    """Two convolutions around a shortcut (He et al. 2015); the first may halve the grid."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = (halve if down else conv)(inputs, outputs), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if down else []
        if inputs != outputs:
            shortcut += [conv(inputs, outputs, 1), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Encoder(nn.Module):
    """Residual stages at strides 4, 8, 16, ..., merged downwards into one grid (feature pyramid, Lin et al. 2017).

    Args:
        widths: channels of the stem (stride 2) and of each stage; each stage halves the grid.
        depths: residual blocks of each stage.
        channels: channels of the features.
        level: the stage whose grid the features have (0 is stride 4, 1 is stride 8).

    `forward` maps (B, 3, h, w) pictures to (B, channels, h / s, w / s) features, s = 4 * 2 ** level, non-negative.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 48, 96, 128),
        depths: Sequence[int] = (2, 2, 1),
        channels: int = 96,
        level: int = 1,
    ) -> None:
        super().__init__()
        if len(depths) != len(widths) - 1 or not 0 <= level < len(depths):
            raise ValueError(
                f"Encoder: expected one depth per stage and a level below their number, got widths {tuple(widths)}, "
                f"depths {tuple(depths)}, level {level}"
            )
        self.channels, self.level = channels, level
        self.stem = nn.Sequential(halve(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.stages = nn.ModuleList()
        for before, width, depth in zip(widths, widths[1:], depths, strict=False):
            blocks = [Block(before if i == 0 else width, width, down=i == 0) for i in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths[level + 1 :])
        self.smooth = nn.Sequential(conv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged: Tensor | None = None
        for lateral, x in zip(reversed(list(self.laterals)), reversed(maps), strict=False):
            side = lateral(x)
            merged = side if merged is None else side + F.interpolate(merged, size=side.shape[-2:], mode="nearest")
        features: Tensor = self.smooth(merged)
        return features


def encoded(encoder: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, h, w) -> features (B, C, *grid), through the head's `per_picture` if it has one: what all its targets share."""
    features: Tensor = encoder(images)
    shared = getattr(head, "per_picture", None)
    return features if shared is None else shared(features)
