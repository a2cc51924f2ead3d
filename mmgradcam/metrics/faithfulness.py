"""Does the model still say so if it sees only what the map shows? Average drop, increase, win (Chattopadhyay et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.errors import InputError

Heat = npt.NDArray[np.float32]
TIE = 1e-4
"""Confidences this near, relatively, are equal: the same confidence computed twice differs by rounding."""


def shown_only(picture: Image.Image, heat: Heat) -> Image.Image:
    """The picture times its heat, E = L o I (section 4.1): black where there is none.

    Args:
        picture: RGB.
        heat: (height, width) in 0..1.
    """
    return Image.fromarray((np.asarray(picture) * heat[..., None]).round().astype(np.uint8))


def average_drop(whole: Sequence[float], shown: Sequence[float]) -> float:
    """Mean of max(0, Y - O) / Y, 0..1: how much of its confidence the model loses when it sees only what the map shows.

    Args:
        whole: Y, the confidence in the class on each picture, above 0.
        shown: O, the confidence on what the map shows of it.

    >>> average_drop([0.8, 0.5], [0.4, 0.6])
    0.25
    """
    y, o = _pairs(whole, shown)
    return float(np.mean(np.maximum(0.0, y - o) / y))


def increase(whole: Sequence[float], shown: Sequence[float]) -> float:
    """Share of pictures, 0..1, whose confidence grows on what the map shows alone, by more than rounding (`TIE`).

    >>> increase([0.8, 0.5], [0.4, 0.6])
    0.5
    """
    y, o = _pairs(whole, shown)
    return float(np.mean(above(o, y)))


def win(shown: Sequence[float], rival: Sequence[float]) -> float:
    """Share of pictures, 0..1, where the confidence on what one map shows is above that on what a rival's shows.

    By more than rounding (`TIE`).

    >>> win([0.4, 0.6, 0.5], [0.3, 0.7, 0.5])
    0.3333333333333333
    """
    one, other = _pairs(shown, rival)
    return float(np.mean(above(one, other)))


def above(one: npt.ArrayLike, other: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Where one confidence is larger than the other by more than rounding (`TIE`).

    >>> above([0.5, 0.50001, 0.51], 0.5).tolist()
    [False, False, True]
    """
    return np.asarray(one, np.float64) > np.asarray(other, np.float64) * (1 + TIE)


def _pairs(first: Sequence[float], second: Sequence[float]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    one, other = np.asarray(first, float), np.asarray(second, float)
    if one.shape != other.shape or one.ndim != 1 or not one.size:
        raise InputError(f"expected as many confidences of one kind as of the other, got {one.shape} and {other.shape}")
    if not (one > 0).all():
        raise InputError(f"expected confidences above 0, got {one.min()}")
    return one, other
