"""Pictures from users, opened safely, and the tensors models see, with the rectangle of the picture they cover."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmgradcam.errors import InputError, UnknownGeometry
from mmgradcam.utils.files import PICTURE, regular

MOST_PIXELS = 100_000_000
SMALLEST_SIDE = 8

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of a picture's width and height; below 0 or above 1 where the model's picture was padded."""


def of_tiles(box: Box | Sequence[Box]) -> TypeGuard[Sequence[Box]]:
    """Whether there are several boxes, of the tiles of a picture, and not the one of a picture seen whole."""
    first, *_ = box
    return isinstance(first, Sequence)


@dataclass(frozen=True)
class PreparedImage:
    """What a model sees of a picture.

    Attributes:
        pixels: (3, h, w), or (T, 3, h, w) where the model sees the picture in T tiles.
        box: the rectangle of the user's picture that they cover; for tiles, T of them.
        size: the picture's width and height, for a task that must know them to tell what it says of the features; the query
            `targets` gets then has it as `size`.
    """

    pixels: Tensor
    box: Box | tuple[Box, ...]
    size: tuple[int, int] | None = None


def open_picture(source: Any) -> Image.Image:
    """An upright RGB picture from a path, an open file, a Pillow image, or an array.

    EXIF rotation is applied; grey, CMYK, Lab and palette pictures become RGB; transparency is laid on white; of an animation it
    is the first frame. Grey values of more than 8 bits are divided by the smallest of 255, 65535 and their own maximum that
    holds them; grey floats by 1 where they lie in 0..1, by their maximum up to 16, and else likewise. Only pixels are taken:
    comments, EXIF and color profiles stay behind; as in the preprocessing models are trained with, values are not converted
    from a profile's color space.

    Args:
        source: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) if an array: integers in 0..255, uint16, booleans, or floats in 0..1.

    Raises:
        InputError: not a picture or a regular file, damaged, smaller than 8 pixels on a side or over 100 million pixels.
    """
    if isinstance(source, (str, os.PathLike)):
        path = regular(Path(source), PICTURE)
        return _opened(path, str(path))
    if isinstance(source, Image.Image):
        return to_rgb(source, "the picture")
    if isinstance(source, np.ndarray):
        return to_rgb(_from_array(source), "the array")
    if hasattr(source, "read") and hasattr(source, "seek"):
        return _opened(source, "the file")
    raise InputError(f"expected a picture (path, file, Pillow image, array or tensor), got {type(source).__name__}")


DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    RuntimeError,
)
"""What Pillow's readers raise at damaged files."""


def _opened(file: Any, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on what it made of a damaged or unusual file
            with Image.open(file, formats=formats()) as image:
                within_limits(image, name)
                image.load()
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture in a format Pillow reads; convert it to PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: over {MOST_PIXELS:,} pixels; make it smaller first") from None
    except DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: the file is damaged or cannot be read ({error}); save or download it again") from None
    return to_rgb(image, name)


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's formats, but those that another program would draw: a page of PostScript may never end."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in ("EPS", "WMF"))


def within_limits(image: Image.Image, name: str) -> None:
    """Raises InputError where a picture is smaller than 8 pixels on a side or over 100 million pixels."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise InputError(f"{name}: {width} x {height} is over {MOST_PIXELS:,} pixels; make it smaller first")
    if min(width, height) < SMALLEST_SIDE:
        raise InputError(f"{name}: expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {width} x {height}")


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """The pixels of any picture, upright, as RGB; see `open_picture`.

    Args:
        image: of any mode; it stays as it is.
        name: what an error calls it.
    """
    within_limits(image, name)
    upright = _upright(_loaded(image, name))
    if upright.mode in GREY:
        return Image.fromarray(_grey(upright, name)).convert("RGB")
    if upright.mode in ("La", "RGBa"):  # of colors that are multiplied by their opacity
        upright = upright.convert(upright.mode.upper())
    if "transparency" in upright.info or upright.mode in ("RGBA", "LA", "PA"):
        layer = upright.convert("RGBA")
        upright = Image.new("RGBA", layer.size, "white")
        upright.alpha_composite(layer)
    rgb = upright.convert("RGB")
    rgb.info = {}
    return rgb


GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def _loaded(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
    except DAMAGED as error:
        raise InputError(f"{name}: the picture is damaged or its file was closed ({error}); open it again") from None
    return image


def _upright(image: Image.Image) -> Image.Image:
    """As its EXIF block says; as it is, where that is damaged and says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ImageOps.exif_transpose(image)
        except DAMAGED:
            return image


def _grey(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """(H, W) values of more than 8 bits, or floats, in 0..255."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: holds values that are not numbers")
    highest = float(values.max())
    if image.mode == "F" and highest <= 16:  # no picture of 8 bits is as dark as that
        top = max(highest, 1.0)
    else:
        top = next(scale for scale in (255.0, 65535.0, highest) if highest <= scale)
    return np.clip(values / top * 255, 0, 255).astype(np.uint8)


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"expected an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    array = array.squeeze(2) if array.shape[2:] == (1,) else array
    kind, wanted = array.dtype.kind, "expected an array of uint8, of integers in 0..255, or of floats in 0..1"
    if kind not in "biuf":
        raise InputError(f"{wanted}, got {array.dtype}")
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if kind == "b" or (kind == "f" and low >= 0 and high <= 1):
        return Image.fromarray((array.astype(np.float64) * 255).round().astype(np.uint8))
    if array.dtype == np.uint16 and high > 255:
        return Image.fromarray((array / 257).round().astype(np.uint8))
    if kind in "iu" and low >= 0 and high <= 255:
        return Image.fromarray(array.astype(np.uint8))
    raise InputError(f"{wanted}, got {array.dtype} in {low}..{high}")


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes.

    >>> iou((0, 0, 2, 1), (1, 0, 3, 1))
    0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def picture_hash(image: Image.Image) -> str:
    """SHA-256 of an RGB picture's size and pixels."""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()


def whole(image: Image.Image) -> PreparedImage:
    """All of an RGB picture at its own size, values in 0..1."""
    return PreparedImage(to_tensor(image), (0.0, 0.0, 1.0, 1.0))


def to_tensor(image: Image.Image) -> Tensor:
    """(H, W) RGB picture -> (3, H, W) float32 in 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class Preprocess:
    """Resizes a picture to a fixed size and normalises it; keeps track of what part of it the model sees.

    Args:
        size: height and width the model wants.
        mean: subtracted, per channel, from values in 0..1.
        std: divided by, per channel.
        how: "pad" keeps all of the picture and its aspect, in the middle of a plane of the mean colour; "crop" fills the
            size and cuts what hangs over; "stretch" gives up the aspect.
        resample: Pillow's resampling filter.
    """

    size: tuple[int, int]
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.25, 0.25, 0.25)
    how: str = "pad"
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def __post_init__(self) -> None:
        if self.how not in ("pad", "crop", "stretch"):
            raise InputError(f'Fit: expected how="pad", "crop" or "stretch", got {self.how!r}')

    def __call__(self, image: Image.Image) -> PreparedImage:
        height, width = self.size
        scales = width / image.width, height / image.height
        if self.how != "stretch":
            one = (min if self.how == "pad" else max)(scales)
            scales = one, one
        w, h = max(1, round(image.width * scales[0])), max(1, round(image.height * scales[1]))
        left, top = (width - w) // 2, (height - h) // 2
        plane = Image.new("RGB", (width, height), tuple(round(255 * m) for m in self.mean))
        plane.paste(image.resize((w, h), self.resample), (left, top))
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        box = (-left / w, -top / h, (width - left) / w, (height - top) / h)
        return PreparedImage((to_tensor(plane) - mean) / std, box)


class TracedPreprocess:
    """A model's own preprocessing, whatever it is, with the rectangle of the user's picture that it, or each tile, shows.

    The rectangle is found by showing the preprocessing two ramps, black and white: how dark a place came out says where in
    the picture it was. Parts that are the same for black and white are padding.

    Args:
        transform: RGB picture -> (3, h, w), or (T, 3, h, w) tiles; resizing, cropping, padding and normalising, the same for
            every picture of a size.

    Raises:
        UnknownGeometry: (when called) it is random, moves parts of the picture about, or does not show it.
    """

    def __init__(self, transform: Callable[[Image.Image], Tensor]) -> None:
        self.transform = transform
        self._boxes: dict[tuple[int, int], Box | tuple[Box, ...]] = {}

    def __call__(self, image: Image.Image) -> PreparedImage:
        return PreparedImage(self.transform(image), self.box(image.size))

    def box(self, size: tuple[int, int]) -> Box | tuple[Box, ...]:
        """The rectangle that is shown of a picture of this width and height; for tiles, one each."""
        if size not in self._boxes:
            self._boxes[size] = self._traced(*size)
        return self._boxes[size]

    def _traced(self, width: int, height: int) -> Box | tuple[Box, ...]:
        x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        planes = [
            Image.fromarray((np.iinfo(np.uint8).max * plane).round().astype(np.uint8)).convert("RGB")
            for plane in (np.zeros_like(x), np.ones_like(x), x, y, x)
        ]
        for _ in range(TRIES):
            drawn = _random_state()
            low, high, *ramps, again = (self.transform(plane).double().mean(-3) for plane in planes)
            if not torch.equal(again.nan_to_num(), ramps[0].nan_to_num()):
                break
            if drawn == _random_state():  # else it is random, or another thread has drawn
                return _rectangles(low, high, ramps)
        raise UnknownGeometry(
            "the preprocessing is random, so that it is not known which part of the picture the model sees; give the one that "
            "is used after training, such as weights.transforms()"
        )


TRIES = 3
"""How often a preprocessing is traced that draws random numbers before it is taken to be random."""

NOWHERE: Box = (2.0, 2.0, 3.0, 3.0)
"""The rectangle of a tile that shows nothing of the picture."""


def _random_state() -> tuple[object, ...]:
    numpy: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy[1].tobytes(), numpy[2]


def _rectangles(low: Tensor, high: Tensor, ramps: Sequence[Tensor]) -> Box | tuple[Box, ...]:
    """Of a black and a white picture and of both ramps, each (h, w) or (T, h, w): the rectangle, or one a tile."""
    spread = high - low
    shown = spread.abs() > 0.5 * spread.abs().max()
    tiles = [_rectangle(*one) for one in zip(*(x.view(-1, *x.shape[-2:]) for x in (low, spread, shown, *ramps)), strict=True)]
    if all(tile == NOWHERE for tile in tiles):
        raise UnknownGeometry(f"the preprocessing makes the same of a black and of a white picture; {OWN_BOX}")
    return tuple(tiles) if low.dim() > 2 else tiles.pop()


OWN_BOX = "return Prepared(pixels, box) from a prepare of your own, with the part of the picture that they show"


def _rectangle(low: Tensor, spread: Tensor, shown: Tensor, *ramps: Tensor) -> Box:
    if min(int(shown.any(axis).sum()) for axis in (0, 1)) < 4:
        return NOWHERE
    inside = shown & _within(shown, 0)[:, None] & _within(shown, 1)
    (left, right), (top, bottom) = (
        _edges((ramp - low) / torch.where(inside, spread, 1.0), inside, axis) for ramp, axis in zip(ramps, (1, 0), strict=True)
    )
    return left, top, right, bottom


def _within(shown: Tensor, axis: int) -> Tensor:
    """(h,) or (w,) bool: rows or columns that show the picture, without the outermost, which may mix it with padding."""
    lines = shown.any(1 - axis).nonzero().flatten()
    margin = max(1, len(lines) // 16)
    lines = lines[margin:-margin] if len(lines) > 2 * margin + 2 else lines
    kept = torch.zeros(shown.shape[axis], dtype=torch.bool, device=shown.device)
    kept[lines] = True
    return kept


def _edges(ramp: Tensor, inside: Tensor, axis: int) -> tuple[float, float]:
    """Where along the user's picture the first and the last edge of a prepared ramp lie, by a plane fitted to its insides."""
    place = torch.arange(ramp.shape[axis], dtype=torch.float64, device=ramp.device) + 0.5
    at = (place[:, None] if axis == 0 else place).expand_as(ramp)[inside]
    value = ramp[inside]
    gradient = ((at - at.mean()) * value).sum() / (at - at.mean()).square().sum()
    start = value.mean() - gradient * at.mean()
    if not (value - start - gradient * at).abs().max() < 0.05:
        raise UnknownGeometry(f"the preprocessing moves parts of the picture about or turns it; {OWN_BOX}")
    return float(start), float(start + gradient * ramp.shape[axis])
