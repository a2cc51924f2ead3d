"""Boxes drawn from maps, and how well they fit those that people drew."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Box
from mmgradcam.images.regions import PixelBox, segment_boxes
from mmgradcam.metrics.localization import Heat, Mask, alike


def pixel_box(box: Box, shape: tuple[int, int]) -> PixelBox:
    """A box in fractions of a picture, as the pixels whose middles lie in it; one pixel at least, none beyond the edges.

    Args:
        box: x0, y0, x1, y1 in fractions of width and height.
        shape: (H, W) of the picture.

    >>> pixel_box((0.25, 0.0, 0.75, 0.5), (2, 4))
    (1, 0, 3, 1)
    """
    (x0, x1), (y0, y1) = (_span(box[i], box[i + 2], shape[1 - i]) for i in (0, 1))
    return x0, y0, x1, y1


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First pixel and the one past the last, of those whose middle lies between two fractions of a side."""
    first = min(max(int(np.ceil(low * size - 0.5)), 0), size - 1)
    return first, min(max(int(np.floor(high * size - 0.5)), first) + 1, size)


def box_of(heat: Heat, share: float = 0.15) -> PixelBox | None:
    """The box around the single largest connected segment at or above a share of the maximum; None without heat.

    Segments connect over 8 neighbours, as those of `Explanation.boxes`, of which this is the first.

    Args:
        heat: (H, W), >= 0.
        share: of the maximum, 0..1.

    Source: Selvaraju et al. 2017, "Grad-CAM", section 4.1: 15% of the maximum, as of CAM's 20% (Zhou et al. 2016).

    >>> box_of(np.array([[1, 0, 0], [0, 0, 0.5], [0, 0.5, 0.1]], np.float32))
    (1, 1, 3, 3)
    """
    if not 0 <= share <= 1:
        raise InputError(f"expected a share of the maximum in 0..1, got {share}")
    mask = (heat >= share * float(heat.max())) & (heat > 0)
    return next(iter(segment_boxes(mask)), None)


def box_iou(one: PixelBox | Box, other: PixelBox | Box) -> float:
    """Area of the intersection of two boxes over that of their union, 0..1; both in pixels or both in fractions.

    The far edges are exclusive, so that a box of pixels has the area of its pixels, as in the kit of ILSVRC.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(both / whole) if (whole := areas[0] + areas[1] - both) > 0 else 0.0


def localized(heat: Heat, boxes: Sequence[PixelBox], share: float = 0.15, iou: float = 0.5) -> bool:
    """True if the map's box (`box_of`) overlaps one of the true boxes enough.

    Args:
        heat: (H, W), >= 0.
        boxes: true boxes of the class, in pixels.
        share: of the maximum, at which the box is drawn.
        iou: intersection over union that is enough, 0..1.
    """
    found = box_of(heat, share)
    return found is not None and any(box_iou(found, box) >= iou for box in boxes)


def localization_error(right: Sequence[Sequence[bool]], located: Sequence[Sequence[bool]], top: int) -> float:
    """ILSVRC's localization error: pictures of which no early prediction has both the right class and a good box.

    Args:
        right: for each picture, whether each of its predictions, the likeliest first, has the right class.
        located: likewise, whether each prediction's box overlaps a true one at IoU >= 0.5 (`localized`).
        top: how many predictions count, 1 or 5 in the papers.

    Raises:
        InputError: no pictures, or not as many predictions in one list as in the other.

    Source: Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge", section 4.2.

    Returns:
        Their share, 0..1.

    >>> localization_error([[True], [True], [False], [True]], [[True], [False], [True], [True]], top=1)
    0.5
    """
    if [len(row) for row in right] != [len(row) for row in located] or not right or top < 1:
        raise InputError(
            f"expected one row of predictions per picture in both lists and a top of 1 or more, got {len(right)} and "
            f"{len(located)} pictures and top {top}; give each prediction its class and its box"
        )
    good = [any(map(operator.and_, classes[:top], boxes[:top])) for classes, boxes in zip(right, located, strict=True)]
    return 1 - sum(good) / len(good)


def loc_delta(heat: Heat, where: Mask | PixelBox, delta: float, picture: npt.NDArray[np.uint8] | None = None) -> float:
    """Grad-CAM++'s Loc: pixels of the map within the box, over the box's pixels and those of the map without.

    The map is scaled to 0..1 by its minimum and maximum, and what is not above delta counts as 0.

    Args:
        heat: (H, W).
        where: the box in pixels; several, or any region, as a (H, W) mask of their union.
        delta: threshold; 0, 0.25 and 0.5 in the paper.
        picture: (H, W, 3); the paper counts the pixels of map times picture, so that black ones count as 0. None
            counts the map's alone.

    Returns:
        0..1, higher is better.

    Source: Chattopadhyay et al. 2018, "Grad-CAM++", section 5.1.3, equation 26: Area(internal pixels) / (Area(bounding
    box) + Area(external pixels)), of non-zero pixels. It says that intensities above delta become 1, and not what becomes
    of the others: were they kept, delta would change nothing.

    >>> loc_delta(np.array([[1, 0.4], [0, 0.6]], np.float32), (0, 0, 1, 2), delta=0.5)
    0.3333333333333333
    """
    if isinstance(where, tuple):
        x0, y0, x1, y1 = where
        mask = np.zeros(heat.shape, np.bool_)
        mask[y0:y1, x0:x1] = True
    else:
        mask = where
    alike(heat, mask)
    low, high = float(heat.min()), float(heat.max())
    lit = heat - low > delta * (high - low)
    if picture is not None:
        coloured = np.asarray(picture.any(-1))
        alike(heat, coloured)
        lit &= coloured
    inside = int((lit & mask).sum())
    whole = int(mask.sum()) + int(lit.sum()) - inside
    return inside / whole if whole else 0.0
