"""Regions of masks: boxes, connected segments, holes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Mask = npt.NDArray[np.bool_]
PixelBox = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, the far edges exclusive."""


def mask_box(mask: Mask) -> PixelBox:
    """The box around the true pixels of a (H, W) mask; all 0 for an empty mask."""
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        return 0, 0, 0, 0
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def fill_holes(mask: Mask) -> Mask:
    """A (H, W) mask with its holes filled: whatever cannot be reached from the border through false pixels."""
    padded = Image.fromarray(np.pad(mask, 1).astype(np.uint8)).copy()
    ImageDraw.floodfill(padded, (0, 0), 2)
    filled: Mask = np.asarray(padded)[1:-1, 1:-1] != 2
    return filled


def segment_boxes(mask: Mask) -> list[PixelBox]:
    """Boxes of the connected segments (8 neighbours) of a (H, W) mask, the segment of most pixels first.

    >>> segment_boxes(np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=bool))
    [(1, 1, 3, 3), (0, 0, 1, 1)]
    """
    parents: list[int] = []

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    runs: list[tuple[int, int, int]] = []  # y, x0, x1 of each run of true pixels
    above: list[int] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
        here = []
        for x0, x1 in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            i = len(runs)
            runs.append((y, x0, x1))
            parents.append(i)
            here.append(i)
            for j in above:
                if runs[j][1] <= x1 and runs[j][2] >= x0:
                    parents[root(j)] = root(i)
        above = here
    found: dict[int, list[int]] = {}
    for i, (y, x0, x1) in enumerate(runs):
        s = found.setdefault(root(i), [0, x0, y, x1, y + 1])
        s[0] += x1 - x0
        s[1:] = [min(s[1], x0), min(s[2], y), max(s[3], x1), max(s[4], y + 1)]
    return [(s[1], s[2], s[3], s[4]) for s in sorted(found.values(), key=lambda s: -s[0])]
