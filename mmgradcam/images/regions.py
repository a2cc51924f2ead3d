"""Regions of masks: boxes, connected segments, holes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Whole = npt.NDArray[np.intp]
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
    for y, left, right in runs[segments != 0].tolist():
        inside[y - 1, left - 1 : right - 1] = True
    return filled


def segment_boxes(mask: Mask) -> list[PixelBox]:
    """Boxes of the connected segments (8 neighbours) of a (H, W) mask, the segment of most pixels first.

    >>> segment_boxes(np.array([[1, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=bool))
    [(1, 1, 3, 3), (0, 0, 1, 1)]
    """
    runs, segments = _segments(mask, diagonal=True)
    if len(runs) == 0:
        return []
    order = np.argsort(segments, kind="stable")
    ys, lefts, rights = runs[order].T
    firsts = np.flatnonzero(np.diff(segments[order], prepend=-1))
    sizes = np.add.reduceat(rights - lefts, firsts)
    corners = [np.minimum.reduceat(lefts, firsts), np.minimum.reduceat(ys, firsts)]
    corners += [np.maximum.reduceat(rights, firsts), np.maximum.reduceat(ys, firsts) + 1]
    boxes = np.stack(corners, 1)[np.argsort(-sizes, kind="stable")]
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes.tolist()]


def _segments(mask: Mask, diagonal: bool) -> tuple[Whole, Whole]:
    """(R, 3) runs of true pixels, row by row as y, x0, x1, and (R,) the first run of the connected segment of each."""
    wide = mask.shape[1] + 2
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8).ravel(), prepend=0)
    starts, ends = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0)
    reach = int(diagonal)
    first = np.searchsorted(ends, starts - wide - reach, side="right")
    last = np.searchsorted(starts, ends - wide + reach, side="left")
    touching = last - first
    below = np.repeat(np.arange(len(starts)), touching)
    above = np.arange(len(below)) - np.repeat(np.cumsum(touching) - touching, touching) + np.repeat(first, touching)
    roots = np.arange(len(starts))
    while (parted := roots[below] != roots[above]).any():
        one, other = roots[below[parted]], roots[above[parted]]
        np.minimum.at(roots, np.maximum(one, other), np.minimum(one, other))
        while (shorter := roots[roots] != roots).any():
            roots[shorter] = roots[roots[shorter]]
    ys = starts // wide
    return np.stack([ys, starts - ys * wide - 1, ends - ys * wide - 1], 1), roots
