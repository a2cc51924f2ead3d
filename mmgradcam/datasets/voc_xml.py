"""Boxes in XML files, as Pascal VOC, ImageNet and Flickr30k Entities write them."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from dataclasses import dataclass
from pathlib import Path

from mmgradcam.datasets.exif import Frame
from mmgradcam.datasets.records import ObjectAnnotation
from mmgradcam.errors import InputError


@dataclass(frozen=True)
class Mark:
    """Something marked in a picture.

    Attributes:
        names: of its class, or the numbers of the phrases that name it.
        box: xmin, ymin, xmax, ymax as they stand in the file, both pixels included; None where it has no box.
        difficult: hard to tell, so that VOC does not count it as something to be found.
    """

    names: tuple[str, ...]
    box: tuple[float, float, float, float] | None
    difficult: bool = False


def read_marks(path: Path) -> tuple[tuple[int, int], list[Mark]]:
    """Width and height of the picture, and what is marked in it.

    Raises:
        InputError: no such file, or something is missing in it.
        ParseError: it is no XML.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    root = xml.parse(path).getroot()
    size = int(_text(root, "size/width", path)), int(_text(root, "size/height", path))
    made = []
    for one in root.findall("object"):
        names = tuple((name.text or "").strip() for name in one.findall("name"))
        if not any(names):
            raise InputError(f"{path}: an object without a name")
        box = None
        if one.find("bndbox") is not None:
            x0, y0, x1, y1 = (float(_text(one, f"bndbox/{edge}", path)) for edge in ("xmin", "ymin", "xmax", "ymax"))
            box = x0, y0, x1, y1
        made.append(Mark(names, box, one.findtext("difficult", "0").strip() == "1"))
    return size, made


def placed(frame: Frame, box: tuple[float, float, float, float], first: int) -> tuple[float, float, float, float]:
    """A mark's box as fractions of the upright picture; `first` is the number of the picture's first pixel, 0 or 1.

    Raises:
        InputError: the box is inverted or outside.
    """
    x0, y0, x1, y1 = box
    return frame.box(x0 - first, y0 - first, x1 + 1 - first, y1 + 1 - first)


def grouped(marks: list[Mark], frame: Frame, first: int) -> list[ObjectAnnotation]:
    """One thing per class, with all its boxes; a class of which all marks are difficult, or none has a box, makes none.

    Raises:
        InputError: a box is inverted or outside.
    """
    of: dict[str, list[Mark]] = {}
    for mark in marks:
        if mark.box is not None:
            of.setdefault(mark.names[0], []).append(mark)
    return [
        ObjectAnnotation(label, tuple(placed(frame, mark.box, first) for mark in some if mark.box))
        for label, some in of.items()
        if not all(mark.difficult for mark in some)
    ]


def _text(root: xml.Element, path: str, file: Path) -> str:
    found = root.findtext(path)
    if found is None or not found.strip():
        raise InputError(f"{file}: {path} is missing")
    return found.strip()
