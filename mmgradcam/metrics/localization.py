"""Does the heat lie on the thing? Measures of one map against one mask, on the picture's pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mmgradcam.regions import fill_holes

Heat = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def peak_in(heat: Heat, mask: Mask) -> bool:
    """True if the largest value of the heat lies inside the mask (the pointing game, Zhang et al. 2016).

    Args:
        heat: (H, W), >= 0.
        mask: (H, W).

    Returns:
        False for heat that is 0 everywhere.
    """
    return bool(heat.any()) and bool(mask[np.unravel_index(int(heat.argmax()), heat.shape)])


def centre_in(mask: Mask) -> bool:
    """True if the middle pixel lies inside the mask: what pointing at the centre would score."""
    return bool(mask[mask.shape[0] // 2, mask.shape[1] // 2])


def random_in(mask: Mask) -> float:
    """The chance that a random pixel lies inside the mask, 0..1."""
    return float(mask.mean())


def inside_outside(heat: Heat, mask: Mask) -> tuple[float, float]:
    """Mean heat inside and outside a (H, W) mask, with the heat scaled to a maximum of 1."""
    scaled = heat / top if (top := float(heat.max(initial=0.0))) > 0 else heat
    inside = float(scaled[mask].mean()) if mask.any() else 0.0
    outside = float(scaled[~mask].mean()) if not mask.all() else 0.0
    return inside, outside


class Localization:
    """Figures over many maps: `add` each map with its mask, then read `figures`."""

    def __init__(self) -> None:
        self._rows: list[tuple[bool, bool, bool, float, float, float]] = []
        self._swapped: list[bool] = []

    def add(self, heat: Heat, mask: Mask, others: Iterable[Heat] = ()) -> None:
        """Counts one target.

        Args:
            heat: (H, W) heat of the target.
            mask: (H, W), where the target truly is.
            others: heat of other targets of the same text or picture, whose objects are others: the swapped maps.
        """
        filled = fill_holes(mask)
        inside, outside = inside_outside(heat, mask)
        self._rows.append((peak_in(heat, mask), peak_in(heat, filled), centre_in(filled), random_in(filled), inside, outside))
        self._swapped += [peak_in(other, filled) for other in others]

    def figures(self) -> dict[str, float]:
        """Shares in 0..1 and the ratio of means.

        Returns:
            `peak`: the peak lies in the mask with its holes filled; `strict`: in the mask itself; `swapped`: another
            target's peak lies in the filled mask; `centre`, `random`: what those points would score; `inside_outside`:
            mean heat inside over mean heat outside; `count`, `swaps`: how many maps and swapped maps were counted.
        """
        if not self._rows:
            return {"count": 0}
        strict, peak, centre, chance, inside, outside = (float(x) for x in np.mean(np.array(self._rows, dtype=float), 0))
        return {
            "peak": peak,
            "strict": strict,
            "swapped": float(np.mean(self._swapped)) if self._swapped else float("nan"),
            "centre": centre,
            "random": chance,
            "inside_outside": inside / outside if outside > 0 else float("inf"),
            "count": len(self._rows),
            "swaps": len(self._swapped),
        }
