"""COCO's segmentations as masks: polygons and run lengths, plain and compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.datasets.records import Mask
from mmgradcam.errors import InputError

FINER = 5
"""Points along a polygon's edge per pixel, as COCO's own tool takes them."""


def decode(segmentation: Any, height: int, width: int) -> Mask:
    """A segmentation of COCO as a (height, width) mask.

    Args:
        segmentation: a list of polygons, each x, y, x, y, ... in pixels, of which the union is meant; or run lengths, a dict
            of `size`, height and width, and `counts`, a list or COCO's string.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Raises:
        InputError: it is neither, or of another size than the picture.

    >>> decode({"size": [2, 2], "counts": [1, 2, 1]}, 2, 2).tolist()
    [[False, True], [True, False]]
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width]:
            raise InputError(f"expected a mask of size {[height, width]}, got {segmentation.get('size')}")
        counts = segmentation["counts"]
        return from_runs(counts if isinstance(counts, list) else unpack(counts), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise InputError(f"expected polygons or run lengths, got {segmentation!r:.60}")
    mask = np.zeros((height, width), dtype=bool)
    for polygon in segmentation:
        mask |= from_polygon(polygon, height, width)
    return mask


def unpack(counts: str | bytes) -> list[int]:
    """Run lengths from COCO's string: 6 bits a character, low ones first; from the fourth on, less the length two before.

    Raises:
        InputError: the string ends within a number or holds other characters.

    >>> unpack("52203")
    [5, 2, 2, 2, 5]
    """
    found: list[int] = []
    value = shift = 0
    for code in counts if isinstance(counts, bytes) else counts.encode():
        bits = code - 48
        if not 0 <= bits < 64:
            raise InputError(f"expected COCO's compressed run lengths, got the character {chr(code)!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = shift = 0
    if shift:
        raise InputError("expected COCO's compressed run lengths, got a string that ends within a number")
    return found


def from_runs(counts: Sequence[int], height: int, width: int) -> Mask:
    """A mask from lengths of runs of background and thing in turn, down the columns.

    Raises:
        InputError: the lengths do not add up to the picture, or one is negative.
    """
    lengths = np.asarray(counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise InputError(f"expected run lengths that add up to {height} x {width} pixels, got {lengths.sum()}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T


def from_polygon(corners: Sequence[float], height: int, width: int) -> Mask:
    """The pixels of a polygon, those that COCO's own tool gives: it walks along the edges in steps of a fifth of a pixel,
    notes where they pass the middle of a column, and fills between the first and second, third and fourth, ... of these.

    Args:
        corners: x, y, x, y, ... in pixels.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Raises:
        InputError: fewer than 3 corners, an odd number of coordinates, or some that are not finite.

    Source: rleFrPoly of COCO's API (Lin 2014).
    """
    points = np.asarray(corners, dtype=np.float64)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise InputError(f"expected a polygon of 3 corners or more, x and y of each, got {len(points)} numbers")
    fine = np.trunc(FINER * points.reshape(-1, 2) + 0.5).astype(np.int64)
    walked = np.concatenate([_walk(a, b) for a, b in zip(fine, np.roll(fine, -1, axis=0), strict=True)])
    (u, v), (before_u, before_v) = walked[1:].T, walked[:-1].T
    x = (np.where(u < before_u, u, u - 1) + 0.5) / FINER - 0.5
    crossing = (u != before_u) & (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    y = np.ceil(np.clip((np.minimum(v, before_v) + 0.5) / FINER - 0.5, 0, height))
    edges = (x[crossing] * height + y[crossing]).astype(np.int64)
    inside: Mask = np.bincount(edges, minlength=height * width + 1)[:-1].cumsum() % 2 == 1
    return inside.reshape(width, height).T


def _walk(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Integer points (n, 2) along an edge, one per step of its longer side, rounded as seen from its lower end."""
    steps = np.abs(end - start)
    long = 0 if steps[0] >= steps[1] else 1
    flip = start[long] > end[long]
    low, high = (end, start) if flip else (start, end)
    t = np.arange(steps[long] + 1)
    points = np.empty((len(t), 2), dtype=np.int64)
    points[:, long] = low[long] + t
    gradient = (high[1 - long] - low[1 - long]) / max(int(steps[long]), 1)
    points[:, 1 - long] = np.trunc(low[1 - long] + gradient * t + 0.5).astype(np.int64)
    return points[::-1] if flip else points
