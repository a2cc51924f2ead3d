"""COCO's segmentations as masks: polygons and run lengths, plain and compressed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmgradcam.datasets.records import Mask
from mmgradcam.errors import InputError

FARTHEST = 1_000_000
"""Pixels from the corner of the picture at which a polygon's corners may lie: COCO's own tool crashes on larger numbers."""


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
    return from_polygons(segmentation, height, width)


# Run lengths are read here and not by pycocotools, which takes a list or string that ends early, and returns memory that
# nobody has set.
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


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """The pixels of a union of polygons, as COCO's own tool gives them.

    Args:
        polygons: x, y, x, y, ... of each, in pixels.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Raises:
        InputError: one has fewer than 3 corners, an odd number of coordinates, or coordinates that are not finite or are
            beyond `FARTHEST`.

    Source: pycocotools, COCO's API (Lin 2014).
    """
    from pycocotools import mask as tool

    points = [np.asarray(polygon, dtype=np.float64) for polygon in polygons]
    for one in points:
        if one.ndim != 1 or len(one) < 6 or len(one) % 2 or not (np.abs(one) <= FARTHEST).all():
            raise InputError(f"expected a polygon of 3 corners or more, x and y of each in pixels, got {one.tolist()!r:.60}")
    runs = tool.frPyObjects([one.tolist() for one in points], height, width)
    return np.asarray(tool.decode(tool.merge(runs)), dtype=bool)
