"""Regions of masks: boxes, connected segments, holes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
    """A (H, W) mask with its holes filled: whatever cannot be reached from the border through false pixels (4 neighbours)."""
    filled = mask.copy()
    x0, y0, x1, y1 = mask_box(mask)
    inside = filled[y0:y1, x0:x1]
    runs, segments = _segments(np.pad(~inside, 1, constant_values=True), diagonal=False)
    for (y, left, right), segment in zip(runs, segments, strict=True):
        if segment != segments[0]:
            inside[y - 1, left - 1 : right - 1] = True
    return filled


def segment_boxes(mask: Mask) -> list[PixelBox]:
    """Boxes of the connected segments (8 neighbours) of a (H, W) mask, the segment of most pixels first.

    >>> segment_boxes(np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=bool))
    [(1, 1, 3, 3), (0, 0, 1, 1)]
    """
    found: dict[int, list[int]] = {}
    for (y, x0, x1), segment in zip(*_segments(mask, diagonal=True), strict=True):
        s = found.setdefault(segment, [0, x0, y, x1, y + 1])
        s[0] += x1 - x0
        s[1:] = [min(s[1], x0), min(s[2], y), max(s[3], x1), max(s[4], y + 1)]
    return [(s[1], s[2], s[3], s[4]) for s in sorted(found.values(), key=lambda s: -s[0])]


def _segments(mask: Mask, diagonal: bool) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Runs of true pixels, row by row as (y, x0, x1), and which connected segment each belongs to."""
    parents: list[int] = []

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    runs: list[tuple[int, int, int]] = []
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
                if runs[j][1] < x1 + diagonal and runs[j][2] > x0 - diagonal:
                    parents[root(j)] = root(i)
        above = here
    return runs, [root(i) for i in range(len(runs))]
