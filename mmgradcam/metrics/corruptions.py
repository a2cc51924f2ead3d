"""Pictures made worse the way cameras and networks do it, in five steps each, as ImageNet-C has it.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
with the authors' own levels. Theirs are for pictures of 224 pixels; radii here grow and shrink with the shorter side.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.errors import InputError

Array = npt.NDArray[np.float64]
Corruption = Callable[[Array, int, np.random.Generator], Array]
"""(H, W, 3) pixels in 0..1, severity 1..5, what to draw noise from -> (H, W, 3); values outside 0..1 are cut."""

SEVERITIES = (1, 2, 3, 4, 5)


def corrupted(picture: Image.Image, kind: Corruption, severity: int, seed: int = 0) -> Image.Image:
    """A picture made worse.

    Args:
        picture: RGB.
        kind: one of `CORRUPTIONS`, or a function of your own.
        severity: 1 (slight) to 5.
        seed: of the noise; the same one gives the same picture.

    Raises:
        InputError: no such severity.

    >>> grey = Image.new("RGB", (8, 8), (100, 100, 100))
    >>> corrupted(grey, brightness, 2).getpixel((0, 0))
    (151, 151, 151)
    """
    if severity not in SEVERITIES:
        raise InputError(f"severity: expected 1 to 5, got {severity!r}")
    made = kind(np.asarray(picture.convert("RGB"), dtype=np.float64) / 255, severity, np.random.default_rng(seed))
    return Image.fromarray(np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8))


def gaussian_noise(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """Noise of a normal distribution, as in low light."""
    return pixels + rng.normal(scale=(0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1], size=pixels.shape)


def shot_noise(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """Noise of counted photons."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(pixels * photons) / photons


def gaussian_blur(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """Blur of a normal distribution, cut at four standard deviations."""
    sigma = (1, 2, 3, 4, 6)[severity - 1] * _scale(pixels)
    line = _bell(int(4 * sigma + 0.5), sigma)
    return _filtered(pixels, np.outer(line, line), "edge")


def defocus_blur(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """A lens out of focus: the mean over a disc with a softened rim."""
    radius, rim = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    wide = max(1.0, radius * _scale(pixels))
    margin = 1 if radius <= 8 else 2
    reach = int(wide) + margin
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x * x + y * y <= wide * wide).astype(np.float64)
    soft = _bell(margin, rim)
    kernel = _filtered((disc / disc.sum())[..., None], np.outer(soft, soft), "constant").squeeze(2)
    return _filtered(pixels, kernel, "reflect")


def brightness(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """More light: the value of HSV grows, hue and saturation stay."""
    value = pixels.max(-1, keepdims=True)
    grown = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 1)
    made: Array = np.divide(pixels, value, out=np.ones_like(pixels), where=value > 0) * grown
    return made


def contrast(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """Each channel drawn towards its mean."""
    mean = pixels.mean((0, 1), keepdims=True)
    made: Array = (pixels - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1] + mean
    return made


def jpeg(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """Compressed to a JPEG of low quality."""
    data = io.BytesIO()
    Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(data, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    with Image.open(data) as read:
        return np.asarray(read, dtype=np.float64) / 255


def pixelate(pixels: Array, severity: int, rng: np.random.Generator) -> Array:
    """Made smaller and larger again, by boxes."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = pixels.shape[:2]
    whole = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    small = whole.resize((max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255


CORRUPTIONS: tuple[Corruption, ...] = (
    gaussian_noise,
    shot_noise,
    defocus_blur,
    gaussian_blur,
    brightness,
    contrast,
    pixelate,
    jpeg,
)


def _scale(pixels: Array) -> float:
    return float(min(pixels.shape[:2])) / 224


def _bell(reach: int, sigma: float) -> Array:
    line: Array = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    line /= line.sum()
    return line


def _filtered(pixels: Array, kernel: Array, edge: str) -> Array:
    """Each pixel of (H, W, C) becomes the sum over an odd-sided, symmetric kernel; `edge` says how np.pad goes on beyond."""
    (height, width), (up, left) = pixels.shape[:2], (side // 2 for side in kernel.shape)
    padded = np.pad(pixels, ((up, up), (left, left), (0, 0)), mode=edge)  # type: ignore[call-overload]
    shape = padded.shape[:2]
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * np.fft.rfft2(kernel, shape)[..., None]
    made: Array = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    return made[2 * up : 2 * up + height, 2 * left : 2 * left + width]
