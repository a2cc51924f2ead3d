"""Maps as seeds of weakly supervised segmentation: a mask from the maps of a picture's classes, its score and its file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmgradcam.errors import InputError
from mmgradcam.metrics.localization import Heat, alike
from mmgradcam.utils.writing import write_file

Labels = npt.NDArray[np.uint8]
NOBODY = 255
"""The label of pixels that belong to no class for certain: VOC's void, white in its palette."""


def seed_mask(heats: Sequence[Heat], classes: Sequence[int], share: float = 0.2) -> Labels:
    """A label for each pixel: the class whose map is largest there, among those at or above a share of their own maximum.

    Args:
        heats: (H, W) each, in 0..1 scaled to their own maximum, one or more per class.
        classes: the label of each heat, 1..254.
        share: of each map's maximum, 0..1.

    Returns:
        (H, W): 0 where no map reaches its share (background), 255 where two classes tie exactly.

    Source: the seeds that Selvaraju et al. 2017, "Grad-CAM", section 4.2, puts in the place of CAM's in Kolesnikov and
    Lampert 2016, "Seed, Expand and Constrain": a map's foreground is at 20% of its maximum. (There, saliency maps give the
    background and the smaller of two classes wins a pixel.)

    >>> seed_mask([np.array([[1.0, 0.5, 0.1]], np.float32), np.array([[0.0, 0.9, 0.1]], np.float32)], [7, 9]).tolist()
    [[7, 9, 0]]
    """
    if len(heats) != len(classes) or not heats or not all(1 <= label <= 254 for label in classes):
        raise InputError(f"expected one class in 1..254 per map, got {len(heats)} maps and classes {list(classes)}")
    first, *others = heats
    for heat in others:
        alike(first, heat)
    maps = np.stack(heats)
    tops = maps.max((1, 2), keepdims=True)
    maps = np.where(maps >= np.float32(share) * tops, maps, 0)
    labels = np.asarray(classes, np.uint8)
    best = maps.max(0)
    seeds = np.where(best > 0, labels[maps.argmax(0)], 0).astype(np.uint8)
    for one, label in zip(maps, labels, strict=True):
        seeds[(one == best) & (best > 0) & (seeds != label)] = NOBODY
    return seeds


def class_ious(seeds: Iterable[Labels], truths: Iterable[Labels], classes: int, ignore: int = 255) -> npt.NDArray[np.float64]:
    """Intersection over union of each class over a whole data set, as VOC counts it: pixels of all pictures in one count.

    Args:
        seeds: (H, W) each, labels 0..classes - 1; 255 (nobody's) counts as wrong wherever the truth has a class.
        truths: (H, W) each, likewise; read one by one beside the seeds, so generators will do.
        classes: how many labels there are with the background, 21 for VOC.
        ignore: label of the truth's pixels that do not count.

    Returns:
        (classes,) in 0..1; nan for a class that neither seeds nor truths have.

    Raises:
        InputError: a label beyond the classes, pairs of unequal size, or more of the one than of the other.

    Source: Everingham et al. 2015, "The Pascal Visual Object Classes Challenge: A Retrospective": true positives over true
    positives, false positives and false negatives.
    """
    counts = np.zeros((classes, classes + 1), np.int64)
    try:
        for seed, truth in zip(seeds, truths, strict=True):
            alike(seed, truth)
            kept = truth != ignore
            said = np.where(seed == NOBODY, classes, seed.astype(np.int64))[kept]
            true = truth[kept].astype(np.int64)
            if (true >= classes).any() or (said > classes).any():
                top = max(int(true.max()), int(said.max()))
                raise InputError(
                    f"expected labels below {classes}, got {top}; say how many classes there are, background included"
                )
            counts += np.bincount(true * (classes + 1) + said, minlength=counts.size).reshape(counts.shape)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("expected as many seeds as truths; give one truth per seed") from None
    hit = np.diagonal(counts).astype(np.float64)
    union = counts.sum(1) + counts.sum(0)[:classes] - hit
    shares: npt.NDArray[np.float64] = np.divide(hit, union, out=np.full(classes, np.nan), where=union > 0)
    return shares


def mean_iou(seeds: Iterable[Labels], truths: Iterable[Labels], classes: int, ignore: int = 255) -> float:
    """The mean of `class_ious` over the classes that seeds or truths have, background included, 0..1.

    torchmetrics' JaccardIndex and scikit-learn's macro jaccard_score of all pixels in a row are the same; torchmetrics'
    MeanIoU is not, since it takes the mean of each picture's.

    Args:
        seeds: as of `class_ious`.
        truths: likewise.
        classes: likewise.
        ignore: likewise.
    """
    each = class_ious(seeds, truths, classes, ignore)
    if np.isnan(each).all():
        raise InputError("expected pictures with pixels that count, got none; give seeds and truths")
    return float(np.nanmean(each))


def save_seed(mask: Labels, path: str | Path) -> Path:
    """Writes a mask as a PNG with VOC's palette, which segmentation tools read as labels and people as colours.

    Args:
        mask: (H, W) labels.
        path: a file that ends in .png. It appears whole or not at all.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: expected a name that ends in .png, since other formats would change the labels")
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(_palette())
    data = io.BytesIO()
    image.save(data, "PNG")
    return write_file(path, data.getvalue())


@cache
def _palette() -> list[int]:
    """Red, green and blue of the 256 labels in a row."""
    return [value for label in range(256) for value in voc_colour(label)]


def voc_colour(label: int) -> tuple[int, int, int]:
    """The red, green and blue of a label in VOC's palette: the label's bits, three by three, from the top bit of each down.

    >>> voc_colour(1), voc_colour(15), voc_colour(255)
    ((128, 0, 0), (192, 128, 128), (224, 224, 192))
    """
    red, green, blue = (sum((label >> (3 * place + channel) & 1) << (7 - place) for place in range(8)) for channel in range(3))
    return red, green, blue
