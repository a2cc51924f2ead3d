"""COCO: captions, instances of 80 classes, and the words of the captions that name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmgradcam.datasets.coco_words import named, split_words
from mmgradcam.datasets.exif import Frame, open_upright
from mmgradcam.datasets.masks import decode
from mmgradcam.datasets.photos import read_json
from mmgradcam.datasets.records import Mask, ObjectAnnotation, Phrase, Sample
from mmgradcam.datasets.stream import InvalidRecord, Source, find_folder
from mmgradcam.errors import InputError

Entry = dict[str, Any]


def coco(path: Path, images: Path | None = None) -> Source:
    """COCO's photos, with captions, things with pixels, and phrases where a caption names a thing.

    A thing per class, with the boxes and the pixels of all its instances. A crowd (`iscrowd`) is no instance, as in COCO's
    own evaluation: a class of which there is only a crowd makes no thing; but where there are instances, the pixels of the
    crowd are theirs too, for COCO counts what is found there neither right nor wrong, and a mask can only say right or wrong.
    A phrase is a word of `coco_words.NAMES` whose class is in the photo.

    Args:
        path: captions_SUBSET.json or instances_SUBSET.json; what the other one knows is added where it lies beside it.
        images: the folder of the pictures, or the one that holds it; by default SUBSET, in the folder of the file or above.

    Raises:
        InputError: a file is damaged or laid out otherwise, or the pictures are nowhere.
    """
    kind, _, subset = path.stem.partition("_")
    other = path.with_name(f"{'instances' if kind == 'captions' else 'captions'}_{subset}.json")
    indices = [read_json(each) for each in (path, other) if each == path or (subset and other.is_file())]
    strays: list[InvalidRecord] = []
    said: dict[Any, list[Entry]] = {}
    drawn: dict[Any, list[Entry]] = {}
    classes: dict[Any, str] = {}
    try:
        listed: dict[Any, Entry] = {}
        for number, one in enumerate(indices[0]["images"]):
            if not isinstance(one, dict) or not isinstance(one.get("id"), (int, str)) or one["id"] in listed:
                strays.append(InvalidRecord(f"entry {number} of images", f"expected an id of its own, got {one!r:.80}"))
            else:
                listed[one["id"]] = one
        for index in indices:
            for number, one in enumerate(index.get("categories", ())):
                if not isinstance(one, dict) or not isinstance(one.get("id"), int) or not isinstance(one.get("name"), str):
                    strays.append(InvalidRecord(f"category {number}", f"expected an id and a name, got {one!r:.80}"))
                else:
                    classes[one["id"]] = one["name"]
            for number, one in enumerate(index["annotations"]):
                if not isinstance(one, dict) or not isinstance(one.get("image_id"), (int, str)):
                    strays.append(InvalidRecord(f"annotation {number}", "expected an image_id, a number or text"))
                    continue
                (said if "caption" in one else drawn).setdefault(one["image_id"], []).append(one)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected COCO's captions or instances: images and annotations; wrong: {error}") from None
    unlisted = sorted({*said, *drawn} - set(listed), key=str)
    strays += [InvalidRecord(f"image {i}", "it has annotations but is not listed") for i in unlisted]
    above = [images, *([images / subset] if subset else [])] if images else []
    beside = [at / name for at in (path.parent, path.parent.parent) for name in (subset, f"images/{subset}", "images", ".")]
    files = [str(one["file_name"]) for one in listed.values() if "file_name" in one]
    folder = find_folder(above or beside, files, "COCO's pictures")

    def read(one: Entry) -> Sample:
        name = str(one["file_name"])
        image, frame = open_upright(folder / name, (int(one["width"]), int(one["height"])))
        objects = [
            thing
            for label, some in _by_class(drawn.get(one["id"], ()), classes).items()
            if (thing := _thing(label, some, frame))
        ]
        captions = tuple(split_words(each["caption"]) for each in said.get(one["id"], ()))
        if not all(captions):
            raise InputError("a caption without words")
        return Sample(name, image, captions, tuple(_phrases(captions, objects)), objects=tuple(objects))

    return Source(f"COCO {subset}", [*listed.values(), *strays], read, lambda one: str(one.get("file_name", one["id"])))


def _by_class(drawn: Sequence[Entry], classes: dict[Any, str]) -> dict[str, list[Entry]]:
    made: dict[str, list[Entry]] = {}
    for one in drawn:
        made.setdefault(classes[one["category_id"]], []).append(one)
    return made


def _thing(label: str, drawn: Sequence[Entry], frame: Frame) -> ObjectAnnotation | None:
    instances = [one for one in drawn if not one.get("iscrowd")]
    if not instances:
        return None
    corners = [[float(number) for number in one["bbox"]] for one in instances]
    boxes = tuple(frame.box(x, y, x + width, y + height) for x, y, width, height in corners)
    return ObjectAnnotation(label, boxes, _union(drawn, frame))


def _union(drawn: Sequence[Entry], frame: Frame) -> Mask | None:
    """Pixels of any of them; None where nobody drew them, or what was drawn is thinner than a pixel."""
    width, height = frame.size
    masks = [decode(one["segmentation"], height, width) for one in drawn if one.get("segmentation")]
    union = frame.mask(np.any(masks, axis=0)) if masks else None
    return union if union is not None and union.any() else None


def _phrases(captions: Sequence[tuple[str, ...]], objects: Sequence[ObjectAnnotation]) -> list[Phrase]:
    of = {thing.label: thing for thing in objects}
    return [
        Phrase(i, first, last, " ".join(words[first : last + 1]), (label,), of[label].boxes, of[label].pixels)
        for i, words in enumerate(captions)
        for first, last, label in named(words)
        if label in of
    ]
