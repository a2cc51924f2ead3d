"""Pictures opened upright, and what was drawn on them turned alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from mmgradcam.errors import InputError
from mmgradcam.images.pictures import Box, open_picture

SLACK = 1.0
"""Pixels by which a box may hang over the picture's edge: annotations differ in whether they count from 0 or 1."""


@dataclass(frozen=True)
class Frame:
    """The pixels that people drew on, and how they turn to be upright.

    Attributes:
        size: width and height in pixels.
        orientation: EXIF's, 1 to 8; 1 where nothing is to be turned.
    """

    size: tuple[int, int]
    orientation: int = 1

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        """A box in pixels, far edges exclusive, as fractions of the upright picture.

        Raises:
            InputError: it is empty, inverted, or reaches over the picture's edge by more than a pixel.

        >>> Frame((4, 2), 6).box(0, 0, 1, 1)  # stored on its side: its first pixel comes to lie at the top right
        (0.5, 0.0, 1.0, 0.25)
        """
        width, height = self.size
        if not (-SLACK <= x0 < x1 <= width + SLACK and -SLACK <= y0 < y1 <= height + SLACK):
            raise InputError(f"expected a box within {width} x {height} pixels, got x {x0:g} to {x1:g}, y {y0:g} to {y1:g}")
        x0, x1 = max(x0 / width, 0.0), min(x1 / width, 1.0)
        y0, y1 = max(y0 / height, 0.0), min(y1 / height, 1.0)
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"expected a box within {width} x {height} pixels, got one beside them")
        if self.orientation >= 5:
            x0, y0, x1, y1 = y0, x0, y1, x1
        if self.orientation in (2, 3, 6, 7):
            x0, x1 = 1 - x1, 1 - x0
        if self.orientation in (3, 4, 7, 8):
            y0, y1 = 1 - y1, 1 - y0
        return x0, y0, x1, y1

    def mask(self, drawn: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A (height, width) array over the stored pixels, upright.

        Raises:
            InputError: it has another size.
        """
        if drawn.shape != self.size[::-1]:
            width, height = self.size
            raise InputError(f"expected a mask of {width} x {height} pixels, got {' x '.join(map(str, drawn.shape[::-1]))}")
        return self.turn(drawn)

    def turn(self, drawn: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The same of an array at any resolution."""
        turned = drawn.T if self.orientation >= 5 else drawn
        if self.orientation in (2, 3, 6, 7):
            turned = turned[:, ::-1]
        if self.orientation in (3, 4, 7, 8):
            turned = turned[::-1]
        return np.ascontiguousarray(turned)


def open_upright(path: Path, size: tuple[int, int] | None = None) -> tuple[Image.Image, Frame]:
    """A picture, upright, and the frame its annotations were drawn in.

    Where the size that the annotations tell does not say whether they were drawn on the stored pixels or on the upright
    picture (or tells nothing), the stored pixels are meant: that is how browsers showed pictures until 2020, when these data
    sets were made, and how most loaders of them read pictures.

    Args:
        path: of the picture.
        size: width and height as the annotations tell.

    Raises:
        InputError: no picture there, a damaged one, or one of another size than the annotations tell.
    """
    image = open_picture(path)
    with Image.open(path) as stored:
        orientation, own = stored.getexif().get(ExifTags.Base.Orientation, 1), stored.size
    if size is None or size == own:
        return image, Frame(own, orientation if orientation in range(1, 9) else 1)
    if size == image.size:
        return image, Frame(size)
    raise InputError(f"expected a picture of {size[0]} x {size[1]} pixels, as its annotations tell, got {own[0]} x {own[1]}")
