"""How far maps agree: with one another, and with where people looked, clicked or drew boxes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Box
from mmgradcam.metrics.boxes import box_iou, box_of, pixel_box
from mmgradcam.metrics.localization import Heat, energy_inside, peak_in
from mmgradcam.metrics.similarity import correlation, ranks

Values = npt.NDArray[np.float64]
AnyMap = npt.NDArray[Any]


def rank_correlation(one: AnyMap, other: AnyMap, side: int = 14) -> float:
    """Spearman's rank correlation of two maps, tied values sharing the mean of their ranks.

    Both are first averaged over side x side equal areas; two maps of one size that is no larger are compared as they are.

    Args:
        one: (H, W).
        other: (h, w), of the same picture.
        side: cells a side; 14 for VQA-HAT.

    Returns:
        -1..1; 0.0 where one map is the same everywhere, which ranks nothing (scipy's spearmanr gives NaN); NaN where one has a
        NaN.

    Source: Das et al. 2016, "Human Attention in Visual Question Answering", section 4: both maps scaled to 14 x 14, their
    pixels ranked, and the ranks correlated.

    >>> rank_correlation(np.array([[1, 2], [3, 4]]), np.array([[10, 20], [40, 30]]))
    0.8
    """
    first, second = _pair(one, other, side)
    return correlation(ranks(first), ranks(second))


def agreement_with_boxes(heat: Heat, boxes: Sequence[Box], share: float = 0.15) -> dict[str, float]:
    """How far a map lies where people drew boxes.

    Args:
        heat: (H, W), >= 0.
        boxes: in fractions of the picture, one at least.
        share: of the maximum, at which the map's own box is drawn.

    Returns:
        Each in 0..1. `peak`: 1 if the map peaks in a box; `energy`: the share of its heat in them (`energy_inside`); `area`:
        the share of the picture they cover, what an even map would score in both; `iou`: the best overlap of the map's
        box (`box_of`) with one of them.
    """
    if not boxes:
        raise InputError("expected boxes that people drew, got none; leave such pictures out")
    height, width = heat.shape
    drawn = [pixel_box(box, (height, width)) for box in boxes]
    mask = np.zeros(heat.shape, np.bool_)
    for x0, y0, x1, y1 in drawn:
        mask[y0:y1, x0:x1] = True
    found = box_of(heat, share)
    return {
        "peak": float(peak_in(heat, mask)),
        "energy": energy_inside(heat, mask),
        "area": float(mask.mean()),
        "iou": 0.0 if found is None else max(box_iou(found, box) for box in drawn),
    }


def agreement_with_clicks(heat: Heat, points: Sequence[tuple[float, float]], share: float = 0.15) -> dict[str, float]:
    """How far a map is high where people clicked or looked.

    Args:
        heat: (H, W), >= 0.
        points: x, y in fractions of the picture, one at least.
        share: of the maximum, from which on a click counts as hit.

    Returns:
        `nss`: the normalized scanpath saliency, the mean at the points of the heat less its mean over its standard deviation
        (0 for a random point or an even map); `hit`: the share of points where the heat reaches the share of its
        maximum; `area`: the share of pixels that do, what random points would score.

    Source: Peters et al. 2005, "Components of bottom-up gaze allocation in natural images" (nss; of all pixels' standard
    deviation, as pysaliency, where others divide by one pixel less).
    """
    places = np.asarray(points, np.float64).reshape(-1, 2)
    if len(places) == 0 or not ((places >= 0) & (places <= 1)).all():
        raise InputError(f"expected points in fractions 0..1 of the picture, one at least, got {list(points)[:3]}")
    size = np.array(heat.shape[::-1])
    x, y = np.minimum((places * size).astype(int), size - 1).T
    reached = (heat >= share * float(heat.max())) & (heat > 0)
    middle, spread = float(heat.mean(dtype=np.float64)), float(heat.std(dtype=np.float64))
    even = heat.min() == heat.max()
    return {
        "nss": 0.0 if even else float((heat[y, x].astype(np.float64) - middle).mean() / spread),
        "hit": float(reached[y, x].mean()),
        "area": float(reached.mean()),
    }


def agreement_with_attention(heat: Heat, attention: AnyMap, side: int = 14) -> dict[str, float]:
    """How far a map is like one of where people looked, both averaged over side x side equal areas.

    Args:
        heat: (H, W), >= 0.
        attention: (h, w) of the same picture, >= 0, at any resolution and scale.
        side: cells a side.

    Returns:
        `rank`: `rank_correlation`; `linear`: Pearson's correlation, -1..1, 0 where one is even; `overlap`: the sum over
        cells of the smaller of the two, each scaled to a sum of 1, 0..1.

    Source: Das et al. 2016 for the rank; Bylinskii et al. 2019, "What do different evaluation metrics tell us about
    saliency models?", for the others (CC and SIM).
    """
    first, second = _pair(heat, attention, side)
    if min(first.min(), second.min()) < 0:
        raise InputError("expected maps >= 0, got negative values; give the positive part")
    totals = first.sum(), second.sum()
    overlap = float(np.minimum(first / totals[0], second / totals[1]).sum()) if min(totals) > 0 else 0.0
    return {"rank": correlation(ranks(first), ranks(second)), "linear": correlation(first, second), "overlap": overlap}


def _pair(one: AnyMap, other: AnyMap, side: int) -> tuple[Values, Values]:
    """Two maps on one grid, flat, each divided by its largest magnitude."""
    if one.ndim != 2 or other.ndim != 2 or 0 in (*one.shape, *other.shape) or side < 1:
        raise InputError(
            f"expected two maps over height and width and a side of 1 or more, got {one.shape}, {other.shape}, {side}"
        )
    if one.shape != other.shape or max(one.shape) > side:
        one, other = _averaged(one, side), _averaged(other, side)
    return _scaled(one), _scaled(other)


def _averaged(values: AnyMap, side: int) -> Values:
    """(side, side) means over equal areas of a map."""
    return _shares(values.shape[0], side) @ values.astype(np.float64) @ _shares(values.shape[1], side).T


@lru_cache
def _shares(size: int, side: int) -> Values:
    """(side, size): the share of each of `side` equal cells that each of `size` pixels takes up."""
    cells, pixels = np.arange(side)[:, None] * size, np.arange(size)[None] * side
    common = np.minimum(cells + size, pixels + side) - np.maximum(cells, pixels)
    shares: Values = np.maximum(common, 0) / size
    return shares


def _scaled(values: AnyMap) -> Values:
    """Flat, of a largest magnitude of 1; what rounding alone sets apart is made equal, for ranks must not part it."""
    flat = values.astype(np.float64).ravel()
    top = np.abs(flat).max()
    return np.round(flat / top, 12) if top > 0 else flat
