"""What pages hold in themselves: pictures, heat on its grids, and its colors."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmgradcam.images.pictures import Box
from mmgradcam.render import heatmaps

PICTURE_SIDE, CANVAS_SIDE = 1280, 640
"""Longest sides of the picture in a page and of the canvas that heat is drawn on, in pixels."""
HEAT_SIDE, MOST_CELLS = 320, 2**19
"""Cells of a grid along a side, and of all grids of a page together."""


def palette() -> str:
    """The 256 colors of heat, RGBA, in base64, which `heat.js` draws with."""
    return base64.b64encode(heatmaps.palette(256).round().byte().numpy().tobytes()).decode()


def heat_data(heats: Tensor, boxes: Sequence[Box]) -> dict[str, Any]:
    """Heat on its grids as JSON, which `heat.js` draws at any size, as `heatmaps.overlay` does.

    Args:
        heats: (K, T, H, W) >= 0 of T tiles or moments, 1 where a pixel has the full color.
        boxes: the rectangle of the picture, in fractions of its sides, that each of the T covers.

    Returns:
        `grid` (T, H, W); `boxes`; `cells`: a byte for each cell, in base64; `gains`: for each of K what 255 stands for. Grids
        of more than `HEAT_SIDE` cells a side, or `MOST_CELLS` in all, are averaged to coarser ones.
    """
    tiles, height, width = heats.shape[1:]
    share = min(1.0, (MOST_CELLS / max(heats.numel(), 1)) ** 0.5, HEAT_SIDE / height, HEAT_SIDE / width)
    grid = max(1, int(height * share)), max(1, int(width * share))
    heats = F.adaptive_avg_pool2d(heats, grid) if share < 1 else heats
    seen = [_seen(grid[0], b[1], b[3])[:, None] & _seen(grid[1], b[0], b[2]) for b in boxes]
    heats = heats * torch.stack(seen)  # else what lies beyond the picture could leave its heat few of 255 steps
    gains = heats.flatten(1).amax(1)
    cells = (heats / torch.where(gains > 0, gains, 1.0)[:, None, None, None] * 255).round().byte()
    packed = base64.b64encode(cells.numpy().tobytes()).decode()
    return {"grid": [tiles, *grid], "boxes": [list(b) for b in boxes], "cells": packed, "gains": gains.tolist()}


def _seen(cells: int, low: float, high: float) -> Tensor:
    """Which cells along an axis have a part in what is drawn between 0 and 1."""
    one = (high - low) / cells
    centers = low + (torch.arange(cells) + 0.5) * one
    return (centers > -abs(one)) & (centers < 1 + abs(one))


def canvas_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of a canvas whose longer side is `side`."""
    return max(1, round(width * side / max(width, height))), max(1, round(height * side / max(width, height)))


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """A picture, made smaller if a side is longer than that."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def picture_uri(picture: Image.Image) -> str:
    """A picture in the page, as large as pages show it."""
    small = fitted(picture, PICTURE_SIDE)
    data, kind = io.BytesIO(), "PNG" if max(small.size) <= 256 else "JPEG"
    small.save(data, kind, **({"quality": 90} if kind == "JPEG" else {"optimize": True}))
    return data_uri(data.getvalue(), kind.lower())


def data_uri(data: bytes, kind: str) -> str:
    """The address that holds a picture itself; `kind` is "png", "jpeg" or "webp"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
