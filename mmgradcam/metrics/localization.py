"""Does the heat lie on the thing? Measures of one map against one mask, on the picture's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.errors import InputError

Heat = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


ZHANG_TOLERANCE = 15.0
"""The pointing game's tolerance in pixels of the picture, as Zhang et al. 2016 play it."""


def widened(mask: Mask, tolerance: float) -> Mask:
    """The pixels whose middle is at most `tolerance` pixels from the middle of a pixel of the mask.

    Args:
        mask: (H, W).
        tolerance: >= 0, in pixels of the mask.

    Raises:
        InputError: a negative tolerance.

    >>> widened(np.array([[False, False, True]]), 1).tolist()
    [[False, True, True]]
    """
    if not tolerance >= 0:
        raise InputError(f"expected a tolerance of 0 pixels or more, got {tolerance}")
    if tolerance == 0 or not mask.any():
        return mask
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask) <= tolerance)


def peak_in(heat: Heat, mask: Mask, tolerance: float = 0.0) -> bool:
    """True if the largest value of the heat lies inside the mask, or near enough: the pointing game.

    Of several equal ones the first counts; Quantus' PointingGame is content with any, so that empty heat always hits.

    Source: Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", section 4.1, with a tolerance of 15 pixels
    (`ZHANG_TOLERANCE`). TorchRay's hits lie less than the tolerance away; here at most.

    Args:
        heat: (H, W), >= 0.
        mask: (H, W).
        tolerance: how far from the mask a peak still hits it, in pixels of the picture.

    Returns:
        False for heat that is 0 everywhere.
    """
    return bool(heat.any()) and bool(widened(mask, tolerance)[np.unravel_index(int(heat.argmax()), heat.shape)])


def centre_in(mask: Mask) -> bool:
    """True if the middle pixel lies inside the mask: what pointing at the centre would score."""
    return bool(mask[mask.shape[0] // 2, mask.shape[1] // 2])


def random_in(mask: Mask) -> float:
    """The chance that a random pixel lies inside the mask, 0..1."""
    return float(mask.mean())


def inside_outside(heat: Heat, mask: Mask) -> tuple[float, float]:
    """Mean heat inside and outside a (H, W) mask, with the heat scaled to a maximum of 1."""
    scaled = heat / top if (top := float(heat.max())) > 0 else heat
    inside = float(scaled[mask].mean()) if mask.any() else 0.0
    outside = float(scaled[~mask].mean()) if not mask.all() else 0.0
    return inside, outside


def energy_inside(heat: Heat, mask: Mask) -> float:
    """The share of all heat that lies inside the mask: the energy-based pointing game.

    Quantus' RelevanceMassAccuracy and AttributionLocalisation are the same but for an empty mask (nan), and the former for
    an empty map (nan).

    Args:
        heat: (H, W), >= 0.
        mask: (H, W); for boxes, their pixels.

    Returns:
        0..1; 0 for heat that is 0 everywhere. An even map scores `random_in(mask)`.

    Source: Wang et al. 2020, "Score-CAM", section 4.3: sum of the heat in the box over the sum of all heat.

    >>> energy_inside(np.array([[3.0, 1.0]], np.float32), np.array([[True, False]]))
    0.75
    """
    alike(heat, mask)
    total = float(heat.sum(dtype=np.float64))
    return float(heat[mask].sum(dtype=np.float64)) / total if total > 0 else 0.0


def pointing_with_reject(tops: Sequence[float], hits: Sequence[bool], present: Sequence[bool], threshold: float) -> float:
    """The pointing game with the option to reject a prediction whose map peaks too low.

    A map whose maximum is below the threshold rejects its class, which is right if the class is absent; any other accepts
    it, which is right if the class is present and the peak hits it.

    Args:
        tops: (N,) the maximum of each raw map, before any scaling; the papers take the maps of a picture's top 5 classes.
        hits: (N,) whether each map peaks on its class (`peak_in`).
        present: (N,) whether each class is in its picture at all.
        threshold: in the units of `tops`; choose it on other pictures (`reject_threshold`).

    Returns:
        The share that is right, 0..1.

    Source: Selvaraju et al. 2017, "Grad-CAM", section 4.1 (hits / (hits + misses), after Zhang et al. 2016).

    >>> pointing_with_reject([5.0, 1.0, 4.0, 2.0], [True, False, False, True], [True, False, False, True], threshold=3.0)
    0.5
    """
    top, hit, there = _rows(tops, hits, present)
    return float(np.where(top >= threshold, hit & there, ~there).mean())


def reject_threshold(tops: Sequence[float], hits: Sequence[bool], present: Sequence[bool]) -> float:
    """The threshold at which `pointing_with_reject` is right most often, to be chosen on tuning data.

    Args:
        tops: (N,) as of `pointing_with_reject`.
        hits: (N,) likewise.
        present: (N,) likewise.

    Returns:
        One of `tops`, the lowest of equally good ones, or infinity where rejecting everything is best.
    """
    top, hit, there = _rows(tops, hits, present)
    order = np.argsort(-top, kind="stable")
    top, hit, there = top[order], hit[order], there[order]
    right = np.cumsum(hit & there) + (~there).sum() - np.cumsum(~there)
    ends = np.append(top[1:] < top[:-1], True)
    best = int(np.where(ends, right, -1)[::-1].argmax())
    last = len(top) - 1 - best
    return float(top[last]) if right[last] >= (~there).sum() else float("inf")


def alike(heat: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
    """Refuses a mask of another size than the heat's."""
    if heat.shape != mask.shape:
        raise InputError(f"expected a mask of the heat's size, {heat.shape}, got {mask.shape}; resize the mask to the picture")


def _rows(tops: Sequence[float], hits: Sequence[bool], present: Sequence[bool]) -> tuple[npt.NDArray[np.float64], Mask, Mask]:
    """The three columns as arrays, of one length."""
    if not len(tops) == len(hits) == len(present) or len(tops) == 0:
        raise InputError(
            f"expected as many tops, hits and present, one at least, got {len(tops)}, {len(hits)} and {len(present)}; "
            "give one row per map"
        )
    return np.asarray(tops, np.float64), np.asarray(hits, np.bool_), np.asarray(present, np.bool_)
