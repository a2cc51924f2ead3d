"""Pascal VOC and ImageNet's localization set, as they are handed out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mmgradcam.datasets.exif import Frame, open_upright
from mmgradcam.datasets.photos import read_lines
from mmgradcam.datasets.records import Mask, Sample
from mmgradcam.datasets.stream import Source
from mmgradcam.datasets.voc_xml import grouped, read_marks
from mmgradcam.errors import InputError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""In the order of their colours in SegmentationClass, from 1 on; 0 is none of them, 255 is void: the seam of a thing."""


def is_voc(folder: Path) -> bool:
    """Whether this is a year's folder of VOC."""
    return (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir()


def voc(place: Path, images: Path | None = None) -> Source:
    """Pictures with boxes and, where somebody drew them, pixels of 20 classes.

    A thing per class that has an object not marked as difficult, with the boxes of all its objects. Pixels in the colour of
    the class in SegmentationClass are its pixels; void ones (255) are nobody's.

    Args:
        place: a year's folder such as VOCdevkit/VOC2012, of which the validation list is read, that of Segmentation first; or
            a list of names in its ImageSets.
        images: the folder of the pictures; by default JPEGImages.

    Raises:
        InputError: there is no list, or it is empty.
    """
    root = place if place.is_dir() else place.parents[2]
    names = _names(place if place.is_file() else _list(root))

    def read(name: str) -> Sample:
        size, marks = read_marks(root / "Annotations" / f"{name}.xml")
        image, frame = open_upright((images or root / "JPEGImages") / f"{name}.jpg", size)
        objects = grouped(marks, frame, first=1)
        drawn = root / "SegmentationClass" / f"{name}.png"
        if drawn.is_file():
            classes = _classes(drawn, frame)
            objects = [replace(one, pixels=_pixels(classes, one.label)) for one in objects]
        return Sample(name, image, objects=tuple(objects))

    return Source(root.name, names, read)


def _list(root: Path) -> Path:
    for name in ("Segmentation/val", "Main/val", "Segmentation/trainval", "Main/trainval", "Main/test"):
        path = root / "ImageSets" / f"{name}.txt"
        if path.is_file():
            return path
    raise InputError(f"{root}: expected a list such as ImageSets/Main/val.txt; there is none")


def _names(path: Path) -> list[str]:
    """First words of a list's lines, without those that a list of one class gives -1: they do not hold it."""
    lines = [line.split() for line in read_lines(path)]
    names = [line[0] for line in lines if line and line[1:] != ["-1"]]
    if not names:
        raise InputError(f"{path}: expected names of pictures, one a line; it is empty")
    return names


def _classes(path: Path, frame: Frame) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        if image.mode not in ("P", "L"):
            raise InputError(f"{path}: expected a palette picture, whose numbers are classes, got mode {image.mode}")
        return frame.mask(np.asarray(image, dtype=np.uint8))


def _pixels(classes: np.ndarray[tuple[int, int], np.dtype[np.uint8]], label: str) -> Mask | None:
    if label not in VOC_CLASSES:
        return None
    mask = classes == VOC_CLASSES.index(label) + 1
    return mask if mask.any() else None


def imagenet(root: Path, images: Path | None = None) -> Source:
    """The validation pictures of ILSVRC's classification and localization task: one class each, and boxes of its objects.

    Args:
        root: the folder ILSVRC, with Data/CLS-LOC/val and Annotations/CLS-LOC/val; LOC_synset_mapping.txt in it or beside it
            tells the names of the classes, of which a thing's label has all, as in "tench, Tinca tinca".
        images: the folder of the pictures.

    Raises:
        InputError: a folder or the names of the classes are missing.
    """
    pictures, marked = images or root / "Data" / "CLS-LOC" / "val", root / "Annotations" / "CLS-LOC" / "val"
    for folder in (pictures, marked):
        if not folder.is_dir():
            raise InputError(f"{root}: expected ILSVRC's pictures and boxes of the validation set; {folder} is missing")
    labels = _synsets(root)
    known = {path.stem for folder, ending in ((pictures, ".JPEG"), (marked, ".xml")) for path in folder.glob(f"*{ending}")}

    def read(name: str) -> Sample:
        size, marks = read_marks(marked / f"{name}.xml")
        image, frame = open_upright(pictures / f"{name}.JPEG", size)
        objects = [replace(one, label=labels[one.label]) for one in grouped(marks, frame, first=0)]
        if not objects:
            raise InputError("no object in its XML file")
        return Sample(name, image, objects=tuple(objects))

    return Source("ImageNet", sorted(known), read)


def _synsets(root: Path) -> dict[str, str]:
    for folder in (root, root.parent):
        path = folder / "LOC_synset_mapping.txt"
        if path.is_file():
            lines = [line.split(" ", 1) for line in read_lines(path) if line.strip()]
            if any(len(line) < 2 for line in lines):
                raise InputError(f"{path}: expected a synset and its names on each line, as in n01440764 tench, Tinca tinca")
            return {synset: names.strip() for synset, names in lines}
    raise InputError(f"{root}: expected LOC_synset_mapping.txt in it or beside it, the names of the classes; there is none")
