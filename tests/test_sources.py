"""Data sets in the layouts they are handed out in, small ones written here, each with malformed records among good ones."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import data
from PIL import Image, ImageOps

from mmgradcam import InputError
from mmgradcam.datasets.coco_words import NAMES, named, split_words
from mmgradcam.datasets.entities import read_sentence
from mmgradcam.datasets.exif import Frame, open_upright
from mmgradcam.datasets.masks import decode, unpack
from mmgradcam.datasets.records import ObjectAnnotation, Sample, where
from mmgradcam.datasets.sources import Source, open_data
from mmgradcam.datasets.tables import table
from mmgradcam.datasets.vqa import vqa

HAND = [[0, 0, 1], [0, 1, 1], [1, 1, 0]]
"""A mask by hand; down its columns it reads 001 011 110, runs of 2, 1, 1, 4, 1."""


def picture(path: Path, size: tuple[int, int] = (40, 20), orientation: int = 1, **settings: Any) -> Path:
    """A grey picture whose stored pixels have a white square in the left upper corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    pixels[: size[1] // 2, : size[0] // 4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(
        path, **({"exif": exif, "quality": 95} if path.suffix.lower() in (".jpg", ".jpeg") else {}), **settings
    )
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(source: Source) -> dict[str, Sample]:
    return {photo.name: photo for photo in source}


def marks(size: tuple[int, int], *objects: str) -> str:
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>{''.join(objects)}</annotation>"


def mark(name: str, *box: int, more: str = "") -> str:
    edges = "".join(f"<{e}>{v}</{e}>" for e, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False))
    return f"<object><name>{name}</name>{more}{f'<bndbox>{edges}</bndbox>' if box else ''}</object>"


# Masks


def test_run_lengths_plain_and_compressed_are_the_mask_drawn_by_hand() -> None:
    assert decode({"size": [3, 3], "counts": [2, 1, 1, 4, 1]}, 3, 3).tolist() == np.array(HAND, bool).tolist()
    # from the fourth on, lengths are less the length two before: 2 1 1 3 0, each a character from "0" on
    assert decode({"size": [3, 3], "counts": "21130"}, 3, 3).tolist() == np.array(HAND, bool).tolist()


def test_compressed_lengths_may_be_long_and_negative() -> None:
    # 1000 = 8 + 31 * 32: low five bits 8 with the sign that more follows (8 + 32 + 48 = "X"), then 31 (with the fifth bit
    # set it would read as negative, so a zero follows): 31 + 32 + 48 = "o", "0"
    assert unpack("Xo0") == [1000]
    assert unpack(b"5" * 3 + b"N") == [5, 5, 5, 3]  # "N" is 30: sign bit set, 30 - 32 = -2, and two before is 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": [3, 3], "counts": [2, 1]}, "add up to 3 x 3"),
        ({"size": [3, 3], "counts": [10, -1]}, "add up to 3 x 3"),
        ({"size": [4, 3], "counts": [12]}, "mask of size"),
        ({"size": [3, 3], "counts": "X"}, "ends within a number"),
        ({"size": [3, 3], "counts": "!"}, "got the character '!'"),
        ([[0, 0, 2, 2]], "polygon of 3 corners"),
        ([[0, 0, 2, 2, 1, float("nan")]], "polygon of 3 corners"),
        ([[0, 0, 2, 2, 1, 2], [0, 0, 2, 2]], "polygon of 3 corners"),
        ([[0, 0, 2, 2, 1, 2, 1]], "polygon of 3 corners"),
        ([[0, 0, 2, 2, 1, 1e12]], "polygon of 3 corners"),
        ([], "polygons or run lengths"),
        ("21130", "polygons or run lengths"),
    ],
)
def test_segmentations_that_are_none_are_refused(wrong: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        decode(wrong, 3, 3)


def test_polygons_are_the_pixels_within() -> None:
    square = np.zeros((4, 5), bool)
    square[1:3, 2:4] = True
    assert (decode([[2, 1, 4, 1, 4, 3, 2, 3]], 4, 5) == square).all()
    assert (decode([[2, 3, 4, 3, 4, 1, 2, 1]], 4, 5) == square).all()  # the other way round
    assert decode([[-9, -9, 9, -9, 9, 9, -9, 9]], 4, 5).all()  # over the edges
    both = decode([[0, 0, 1, 0, 1, 1, 0, 1], [2, 1, 4, 1, 4, 3, 2, 3]], 4, 5)
    assert both.sum() == 5
    assert both[0, 0]


def rasterized(corners: list[float], height: int, width: int) -> np.ndarray:
    """COCO's rule written out: walk along the edges in fifths of a pixel, and flip all that follows where a column is passed."""
    fine = [(int(5 * x + 0.5), int(5 * y + 0.5)) for x, y in zip(corners[::2], corners[1::2], strict=True)]
    path: list[tuple[int, int]] = []
    for start, end in zip(fine, fine[1:] + fine[:1], strict=True):
        steps = [abs(b - a) for a, b in zip(start, end, strict=True)]
        long = 0 if steps[0] >= steps[1] else 1
        flip = start[long] > end[long]
        low, high = (end, start) if flip else (start, end)
        slope = (high[1 - long] - low[1 - long]) / max(steps[long], 1)
        edge = [(low[long] + t, int(low[1 - long] + slope * t + 0.5)) for t in range(steps[long] + 1)]
        edge = edge if long == 0 else [(x, y) for y, x in edge]
        path += edge[::-1] if flip else edge
    flat = np.zeros(height * width, bool)
    for (u, v), (next_u, next_v) in itertools.pairwise(path):
        x = (min(u, next_u) + 0.5) / 5 - 0.5
        if u != next_u and x in range(width):
            flat[int(x) * height + math.ceil(min(max((min(v, next_v) + 0.5) / 5 - 0.5, 0), height)) :] ^= True
    return flat.reshape(width, height).T


def test_masks_are_those_of_cocos_rule_and_run_lengths_are_those_of_its_tool() -> None:
    from pycocotools import mask as tool

    rng = np.random.default_rng(0)
    for i in range(120):
        height, width = rng.integers(1, 40, 2).tolist()
        polygons = [
            (rng.random((rng.integers(3, 12), 2)) * [width + 6, height + 6] - 3 * (i % 2)).ravel() for _ in range(1 + i % 3)
        ]
        polygons = [(np.round(corners) if i % 3 == 0 else corners).tolist() for corners in polygons]
        expected = np.logical_or.reduce([rasterized(corners, height, width) for corners in polygons])
        assert (decode(polygons, height, width) == expected).all(), polygons
        drawn = rng.random((height, width)) > rng.random()
        packed = tool.encode(np.asfortranarray(drawn, dtype=np.uint8))
        assert (decode({"size": [height, width], "counts": packed["counts"].decode()}, height, width) == drawn).all()


# Pictures stored on their side


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_was_drawn_turns_with_the_picture(orientation: int, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg", (40, 20), orientation)
    image, frame = open_upright(path, (40, 20))
    assert image.size == ((20, 40) if orientation > 4 else (40, 20))
    white = np.asarray(image.convert("L")) > 200
    drawn = np.zeros((20, 40), bool)
    drawn[:10, :10] = True
    assert (frame.mask(drawn) == white).mean() > 0.99
    box = ObjectAnnotation("white", (frame.box(0, 0, 10, 10),))
    assert (where(box, white.shape) == frame.mask(drawn)).all()
    stored = Image.fromarray(drawn.astype(np.uint8))
    stored.getexif()[0x0112] = orientation
    assert (np.asarray(ImageOps.exif_transpose(stored), dtype=bool) == frame.mask(drawn)).all()


def test_annotations_of_the_upright_picture_stay_and_others_are_refused(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg", (40, 20), 6)
    _, frame = open_upright(path, (20, 40))
    assert frame == Frame((20, 40))
    assert frame.box(0, 0, 10, 10) == (0, 0, 0.5, 0.25)
    with pytest.raises(InputError, match="picture of 30 x 20 pixels, as its annotations tell, got 40 x 20"):
        open_upright(path, (30, 20))


@pytest.mark.parametrize(
    "box", [(5, 0, 5, 9), (9, 0, 5, 9), (0, 0, 42, 9), (-2, 0, 5, 9), (0, 20.5, 3, 21), (0, 0, float("nan"), 5)]
)
def test_boxes_inverted_or_outside_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected a box within 40 x 20"):
        Frame((40, 20)).box(*box)


def test_boxes_may_hang_over_by_a_pixel() -> None:
    assert Frame((40, 20)).box(-1, 0, 41, 10) == (0, 0, 1, 0.5)


# The stream


def test_a_stream_goes_on_where_it_stopped_and_counts_what_is_malformed() -> None:
    opened: list[int] = []

    def make(number: int) -> Sample:
        opened.append(number)
        if number % 3 == 1:
            raise (InputError("bad box"), KeyError("bbox"), OSError("gone"))[number // 3]
        return Sample(str(number), Image.new("RGB", (8, 8)))

    source = Source("numbers", range(9), make, "number {}".format)
    assert len(source) == 9
    stream = source.since(5)
    assert opened == []  # nothing is read before it is asked for
    assert [photo and photo.name for photo in stream] == ["5", "6", None, "8"]
    assert source.bad == ["number 7: OSError: gone"]
    assert [photo.name for photo in source] == ["0", "2", "3", "5", "6", "8"]
    assert source.bad == ["number 1: bad box", "number 4: 'bbox' is missing", "number 7: OSError: gone"]
    assert list(source.since(9)) == []
    with pytest.raises(InputError, match="record number from 0 on"):
        source.since(-1)


# COCO


def shot(number: int, name: str, size: tuple[int, int] = (40, 20)) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": size[0], "height": size[1]}


def drawn(image: int, category: int, box: list[float], segmentation: Any = None, crowd: int = 0) -> dict[str, Any]:
    found = {"image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd}
    return found if segmentation is None else {**found, "segmentation": segmentation}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Five photos, three of them malformed, and an annotation that belongs to none."""
    images = [shot(7, "a.jpg"), shot(8, "b.jpg"), shot(9, "gone.jpg"), shot(10, "cut.jpg"), shot(11, "big.jpg", (50, 20))]
    for name in ("a.jpg", "cut.jpg", "big.jpg"):
        picture(tmp_path / "val2017" / name)
    picture(tmp_path / "val2017" / "b.jpg", orientation=3)
    truncate(tmp_path / "val2017" / "cut.jpg")
    crowd = {"size": [20, 40], "counts": [780, 20]}  # the last column
    polygon = [[0, 0, 10, 0, 10, 5, 0, 5], [0, 15, 10, 15, 10, 20, 0, 20]]
    instances = [
        drawn(7, 1, [0, 0, 10, 20], polygon), drawn(7, 1, [30, 0, 10, 20], crowd, 1), drawn(7, 18, [20, 10, 10, 10]),
        drawn(7, 3, [30, 0, 10, 20], crowd, 1), drawn(8, 1, [0, 0, 10, 5], polygon[:1]),
    ]  # fmt: skip
    captions = [
        {"image_id": 7, "caption": "Two men, and a hot dog near a Dog."}, {"image_id": 7, "caption": "cars park ."},
        {"image_id": 8, "caption": "people"}, {"image_id": 99, "caption": "nowhere"},
    ]  # fmt: skip
    classes = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]
    write(tmp_path / "annotations/captions_val2017.json", {"images": images, "annotations": captions})
    write(tmp_path / "annotations/instances_val2017.json", {"images": images, "annotations": instances, "categories": classes})
    return tmp_path / "annotations"


@pytest.mark.parametrize("kind", ["captions", "instances"])
def test_coco(kind: str, coco: Path) -> None:
    source = open_data(coco / f"{kind}_val2017.json")
    assert source.name == "COCO val2017"
    assert len(source) == 6
    photos = read(source)
    assert list(photos) == ["a.jpg", "b.jpg"]
    one = photos["a.jpg"]
    assert one.captions[0] == ("two", "men", ",", "and", "a", "hot", "dog", "near", "a", "dog", ".")
    assert [(p.caption, p.first, p.last, p.text, p.types) for p in one.phrases] == [
        (0, 1, 1, "men", ("person",)), (0, 9, 9, "dog", ("dog",))
    ]  # neither the hot dog, nor the cars of which there is but a crowd  # fmt: skip
    assert [(thing.label, thing.boxes) for thing in one.objects] == [
        ("person", ((0, 0, 0.25, 1),)), ("dog", ((0.5, 0.5, 0.75, 1),))
    ]  # fmt: skip
    people = np.zeros((20, 40), bool)
    people[:5, :10] = people[15:, :10] = people[:, 39] = True  # two polygons of one man, and a crowd
    assert (one.objects[0].pixels == people).all()
    assert one.phrases[0].pixels is one.objects[0].pixels
    assert one.objects[1].pixels is None
    turned = np.zeros((20, 40), bool)
    turned[15:, 30:] = True
    assert (photos["b.jpg"].objects[0].pixels == turned).all()  # stored upside down
    assert photos["b.jpg"].objects[0].boxes == ((0.75, 0.75, 1, 1),)
    bad = dict(line.split(": ", 1) for line in source.bad)
    assert list(bad) == ["gone.jpg", "cut.jpg", "big.jpg", "image 99"]
    assert "no such file" in bad["gone.jpg"]
    assert "damaged" in bad["cut.jpg"]
    assert bad["big.jpg"] == "expected a picture of 50 x 20 pixels, as its annotations tell, got 40 x 20"
    assert bad["image 99"] == "it has annotations but is not listed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bbox": [0, 0, 60, 5]}, "expected a box within 40 x 20 pixels, got x 0 to 60"),
        ({"bbox": [5, 5, -3, 2]}, "expected a box within"),
        ({"category_id": 5}, "5 is missing"),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, "expected a mask of size [20, 40], got [5, 5]"),
        ({"segmentation": [[0, 0, 5]]}, "expected a polygon"),
        ({"bbox": None}, "TypeError"),
    ],
)
def test_a_malformed_instance_is_named_and_the_rest_goes_on(change: dict[str, Any], said: str, coco: Path) -> None:
    path = coco / "instances_val2017.json"
    index = json.loads(path.read_text())
    index["annotations"][0].update(change)
    write(path, index)
    source = open_data(path)
    assert list(read(source)) == ["b.jpg"]
    assert source.bad[0].startswith("a.jpg: ")
    assert said in source.bad[0]


def test_entries_of_cocos_index_that_are_malformed_are_records_too(coco: Path) -> None:
    path = coco / "captions_val2017.json"
    index = json.loads(path.read_text())
    index["images"] += [{"file_name": "x.jpg"}, shot(7, "again.jpg")]
    index["annotations"].append({"caption": "of what?"})
    write(path, index)
    source = open_data(path)
    assert len(source) == 9
    assert len(read(source)) == 2
    assert [line.split(":")[0] for line in source.bad[3:]] == [
        "entry 5 of images",
        "entry 6 of images",
        "annotation 4",
        "image 99",
    ]


DEEP = json.loads("[" * 900 + "]" * 900)
"""Deep enough for what walks it to fail, and not for what reads it."""

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "no record": ("images", {"": 7}),
    "long name": ("images", {"id": 1, "file_name": "x" * 300 + ".jpg", "width": 9, "height": 9}),
    "name that is a number": ("images", {"id": 1, "file_name": 5, "width": 9, "height": 9}),
    "name that no file has": ("images", {"id": 1, "file_name": "a\0b\ud800", "width": 9, "height": 9}),
    "name that is a list": ("images", {"id": 1, "file_name": DEEP, "width": 9, "height": 9}),
    "id that is a list": ("images", {"id": [1], "file_name": "a.jpg", "width": 9, "height": 9}),
    "size that is none": ("images", {"id": 1, "file_name": "a.jpg", "width": float("inf"), "height": "tall"}),
    "picture that is a number": ("images", 5),
    "picture of a list": ("annotations", {"image_id": [7], "category_id": 1, "bbox": [0, 0, 1, 1]}),
    "class that is a list": ("annotations", {"image_id": 8, "category_id": [1], "bbox": [0, 0, 1, 1]}),
    "box of texts": ("annotations", {"image_id": 8, "category_id": 1, "bbox": ["a", None, 1, 1]}),
    "box that is a number": ("annotations", {"image_id": 8, "category_id": 1, "bbox": 5}),
    "box deep within": ("annotations", {"image_id": 8, "category_id": 1, "bbox": DEEP}),
    "mask deep within": ("annotations", {"image_id": 8, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": DEEP}),
    "caption that is a number": ("annotations", {"image_id": 8, "caption": 5}),
    "caption that is a list": ("annotations", {"image_id": 8, "caption": DEEP}),
    "class of no name": ("categories", {"id": 5}),
    "class that is a number": ("categories", 5),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_one_record_of_coco_whatever_it_holds_is_named_and_the_rest_goes_on(what: str, coco: Path) -> None:
    path = coco / "instances_val2017.json"
    index = json.loads(path.read_text())
    (coco / "captions_val2017.json").unlink()
    key, record = WRONG[what]
    known = len([*open_data(path).bad]), len(list(open_data(path)))
    index[key].append(record)
    path.write_text(json.dumps(index))
    source = open_data(path)
    photos = [photo for photo in source.since(0) if photo is not None]
    before = [line for line in source.bad if not line.startswith(("gone.jpg", "cut.jpg", "big.jpg", "image 99"))]
    assert len(before) == 1, known
    assert len(before[0]) < 500
    assert "\n" not in before[0]
    assert len(photos) == (1 if key == "annotations" and "of a list" not in what else 2)


def test_records_too_deep_to_read_leave_the_others(coco: Path) -> None:
    path = coco / "instances_val2017.json"
    text = path.read_text()
    (coco / "captions_val2017.json").unlink()
    for deep in ("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000):
        record = '{"image_id": 8, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": ' + deep + "}"
        path.write_text(text.replace('"annotations": [', f'"annotations": [{record}, '))
        source = open_data(path)
        assert list(read(source)) == ["a.jpg"]
        assert [line for line in source.bad if line.startswith("b.jpg: ")]


def test_lists_that_are_no_text_and_names_that_no_folder_has_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"val\.txt: expected a text in UTF-8"):
        open_data(tmp_path / "val.txt")
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(InputError, match="no such file or folder"):
            open_data(tmp_path / name)
    picture(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "long.csv").write_text("x" * 200_000)
    assert len(read(open_data(tmp_path / "photos"))) == 1


def test_a_broken_index_or_lost_pictures_are_one_line(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected COCO's pictures, such as a.jpg in one of .*/elsewhere"):
        (tmp_path / "elsewhere").mkdir()
        open_data(coco / "captions_val2017.json", tmp_path / "elsewhere")
    assert len(read(open_data(coco / "captions_val2017.json", tmp_path))) == 2  # the folder above
    for broken, said in (("{", "expected a JSON file"), ({"images": []}, "expected COCO's"), ([], "expected COCO's"), ({"images": 3, "annotations": []}, "expected COCO's")):  # fmt: skip
        write(coco / "captions_val2017.json", broken)
        with pytest.raises(InputError, match=said):
            open_data(coco / "captions_val2017.json")


def test_words_name_classes() -> None:
    assert len(set(NAMES.values()) - {""}) == 80
    said = split_words("A man's bus, ponies at the train tracks; wine glasses on dining tables by a TV monitor")
    assert [(said[first : last + 1], name) for first, last, name in named(said)] == [
        (("bus",), "bus"), (("ponies",), "horse"), (("wine", "glasses"), "wine glass"), (("dining", "tables"), "dining table"),
        (("tv", "monitor"), "tv"),
    ]  # fmt: skip


# Flickr30k Entities


def test_sentences_of_flickr30k() -> None:
    words, phrases = read_sentence("[/EN#5/people/other A man 's arm] in [/EN#0/notvisual it] .")
    assert words == ["A", "man", "'s", "arm", "in", "it", "."]
    assert phrases == [("5", ("people", "other"), 0, 3), ("0", ("notvisual",), 5, 5)]
    for broken, said in (
        ("[/EN#1/people A man sits .", "not closed"),
        ("a [/EN#1/people ] sits .", "without words"),
        ("[/EN#1/people A [/EN#2/people man] ]", "within another"),
        ("a [/EN#1/people]", "without words"),
    ):
        with pytest.raises(InputError, match=said):
            read_sentence(broken)


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    root = tmp_path / "flickr30k_entities"
    sentence = "[/EN#1/people Two men] with [/EN#2/clothing hats] at [/EN#3/scene dusk] .\n[/EN#1/people People] .\n"
    good = marks((40, 20), mark("1", 1, 1, 20, 10), mark("1</name><name>2", 21, 1, 40, 20), mark("3", more="<scene>1</scene><nobndbox>1</nobndbox>"))  # fmt: skip
    for name, text, boxes in (
        ("100", sentence, good),
        ("101", "[/EN#1/people Two men", good),
        ("102", sentence, good[:-9]),
        ("103", sentence, marks((40, 20), mark("1", 9, 1, 3, 10))),
        ("104", sentence, marks((40, 20), mark("1", 9, 1, 30))),
    ):
        write(root / "Sentences" / f"{name}.txt", text)
        write(root / "Annotations" / f"{name}.xml", boxes)
        picture(tmp_path / "flickr30k-images" / f"{name}.jpg")
    write(root / "Annotations" / "105.xml", good)
    write(root / "val.txt", "100\n105\n")
    return root


def test_flickr30k_entities(flickr: Path) -> None:
    source = open_data(flickr)
    (photo,) = source
    assert photo.captions == (("two", "men", "with", "hats", "at", "dusk", "."), ("people", "."))
    assert [(p.caption, p.first, p.last, p.text, p.types, p.boxes) for p in photo.phrases] == [
        (0, 0, 1, "Two men", ("people",), ((0, 0, 0.5, 0.5), (0.5, 0, 1, 1))),
        (0, 3, 3, "hats", ("clothing",), ((0.5, 0, 1, 1),)),
        (1, 0, 0, "People", ("people",), ((0, 0, 0.5, 0.5), (0.5, 0, 1, 1))),
    ]
    bad = dict(line.split(": ", 1) for line in source.bad)
    assert list(bad) == ["101", "102", "103", "104", "105"]
    assert "not closed" in bad["101"]
    assert bad["102"].startswith("ParseError")
    assert "expected a box within" in bad["103"]
    assert "bndbox/ymax is missing" in bad["104"]
    assert "no such file" in bad["105"]
    split = open_data(flickr / "val.txt")
    assert (len(split), len(read(split)), len(split.bad)) == (2, 1, 1)


# VQA and VQA-HAT


def ask(folder: Path, version: int) -> Path:
    """VQA's files for four photos, the third of which is lost; the fourth has an annotation without a question."""
    for number in (1, 2, 4):
        picture(folder / "val2014" / f"COCO_val2014_{number:012d}.jpg")
    each, prefix = (10, "") if version == 1 else (1000, "v2_")
    numbers = [each, each + 1, 2 * each, 3 * each, 4 * each]
    questions = [{"question_id": q, "image_id": q // each, "question": f"What is {q}?"} for q in numbers]
    ten = [{"answer": a} for a in ["Red"] * 5 + ["blue"] * 3 + ["pink"] * 2]
    given: list[dict[str, Any]] = [
        {"question_id": q, "image_id": q // each, "answers": ten, "multiple_choice_answer": "red", "answer_type": "other"}
        for q in (*numbers[:-1], numbers[-1] + 1)
    ]
    given[1]["answers"] = [{"answer": str(i)} for i in range(10)]
    write(folder / f"{prefix}OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    index = {"annotations": [*given, {"answers": []}], "data_subtype": "val2014"}
    return write(folder / f"{prefix}mscoco_val2014_annotations.json", index)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Where two people looked to answer question 10 of version 1, and somebody to answer question 1000 of version 1."""
    folder = tmp_path / "vqahat_val"
    folder.mkdir()
    for name, value in (("10_1", 255), ("10_2", 0), ("1000_1", 255)):
        drawn = np.full((20, 40), 51, np.uint8)
        drawn[:, :10] = value
        Image.fromarray(drawn).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("version", [1, 2])
def test_vqa(version: int, tmp_path: Path, maps: Path) -> None:
    path = ask(tmp_path, version)
    source = open_data(path)
    photos = read(source)
    assert list(photos) == ["1", "2"]
    first, second = photos["1"].questions
    number = 10 if version == 1 else 1000
    assert (first.text, first.kind, first.answers) == (f"What is {number}?", "other", ("red", "blue"))
    assert second.answers == ("red",)  # no three agree
    assert second.attention is None
    if version == 2:  # its question 1000 is another one than that of version 1
        assert first.attention is None
    else:
        assert first.attention is not None
        assert first.attention.shape == (20, 40)
        np.testing.assert_allclose(first.attention[0, [0, 9, 10, 39]], [0.5, 0.5, 0.2, 0.2])
    bad = dict(line.split(": ", 1) for line in source.bad)
    questions = path.with_name(path.name.replace("mscoco", "OpenEnded_mscoco").replace("annotations", "questions"))
    assert list(bad) == ["image 3", "image 4", "annotation 5"]
    assert "no such file" in bad["image 3"]
    assert bad["image 4"] == f"question {4 * number + 1} has no words in {questions.name}"
    assert read(open_data(questions)).keys() == photos.keys()


def test_vqa_hat_alone(tmp_path: Path, maps: Path) -> None:
    v2 = ask(tmp_path, 2)
    with pytest.raises(InputError, match=r"expected VQA's annotations beside the maps, as mscoco_val2014_annotations\.json"):
        open_data(maps)
    with pytest.raises(
        InputError, match=r"expected maps of questions of v2_mscoco_val2014_annotations\.json, of VQA's version 1"
    ):
        vqa(v2, attention=maps, looked_at=True)
    ask(tmp_path, 1)
    (photo,) = open_data(maps)
    assert [one.text for one in photo.questions] == ["What is 10?"]
    Image.new("L", (40, 20)).save(maps / "20_1.png")
    source = open_data(maps)
    assert list(read(source)) == ["1"]
    assert "black all over" in source.bad[0]


def test_where_people_looked_turns_with_the_picture(tmp_path: Path, maps: Path) -> None:
    ask(tmp_path, 1)
    picture(tmp_path / "val2014" / "COCO_val2014_000000000001.jpg", orientation=6)
    photo = next(iter(open_data(maps)))
    attention = photo.questions[0].attention
    assert photo.image.size == (20, 40)
    assert attention is not None
    assert attention.shape == (40, 20)
    np.testing.assert_allclose(attention[[0, 9, 10, 39], 0], [0.5, 0.5, 0.2, 0.2])


def test_broken_files_of_vqa_are_one_line(tmp_path: Path) -> None:
    path = ask(tmp_path, 2)
    write(path, {"annotations": 3})
    with pytest.raises(InputError, match="expected VQA's annotations and questions"):
        open_data(path)
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").unlink()
    with pytest.raises(InputError, match="expected a JSON file"):
        open_data(path)


# VOC and ImageNet


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    hard = "<difficult>1</difficult>"
    good = marks((40, 20), mark("dog", 1, 1, 10, 10), mark("dog", 31, 1, 40, 20, more=hard), mark("cat", 1, 1, 5, 5, more=hard))
    colors = Image.new("P", (40, 20))
    colors.putpalette(bytes(range(256)) * 3)
    colors.paste(12, (0, 0, 10, 10))  # the twelfth class is the dog
    colors.paste(255, (10, 0, 12, 10))
    (root / "SegmentationClass").mkdir(parents=True)
    for name in ("2007_1", "2007_2", "2007_3", "2007_4"):
        write(root / "Annotations" / f"{name}.xml", good)
        picture(root / "JPEGImages" / f"{name}.jpg")
        colors.save(root / "SegmentationClass" / f"{name}.png")
    colors.crop((0, 0, 20, 20)).save(root / "SegmentationClass" / "2007_2.png")
    colors.convert("RGB").save(root / "SegmentationClass" / "2007_3.png")
    (root / "SegmentationClass" / "2007_4.png").unlink()
    write(root / "ImageSets/Segmentation/val.txt", "2007_1\n2007_2\n2007_3\n")
    write(root / "ImageSets/Main/val.txt", "2007_1\n2007_4\n2007_5\n")
    write(root / "ImageSets/Main/dog_val.txt", "2007_1  1\n2007_4 -1\n")
    return root


def test_voc(voc: Path) -> None:
    source = open_data(voc.parent)
    (photo,) = source
    assert (source.name, len(source), photo.name) == ("VOC2012", 3, "2007_1")
    (dog,) = photo.objects  # there is a cat, but it is difficult
    assert dog == ObjectAnnotation("dog", ((0, 0, 0.25, 0.5), (0.75, 0, 1, 1)))
    pixels = np.zeros((20, 40), bool)
    pixels[:10, :10] = True  # void is nobody's
    assert (dog.pixels == pixels).all()
    assert source.bad[0] == "2007_2: expected a mask of 40 x 20 pixels, got 20 x 20"
    assert "expected a palette picture" in source.bad[1]


def test_lists_of_voc(voc: Path) -> None:
    source = open_data(voc / "ImageSets/Main/val.txt")
    photos = read(source)
    assert list(photos) == ["2007_1", "2007_4"]
    assert photos["2007_4"].objects[0].pixels is None
    assert source.bad == [f"2007_5: {voc}/Annotations/2007_5.xml: no such file"]
    assert list(read(open_data(voc / "ImageSets/Main/dog_val.txt"))) == ["2007_1"]
    write(voc / "ImageSets/Main/val.txt", "")
    with pytest.raises(InputError, match="it is empty"):
        open_data(voc / "ImageSets/Main/val.txt")


def test_imagenet(tmp_path: Path) -> None:
    root = tmp_path / "ILSVRC"
    boxes, pictures = root / "Annotations/CLS-LOC/val", root / "Data/CLS-LOC/val"
    for name, content in (
        ("1", marks((40, 20), mark("n01", 0, 0, 9, 9), mark("n01", 30, 10, 40, 20))),
        ("2", marks((40, 20), mark("n99", 0, 0, 9, 9))),
        ("3", marks((40, 20), mark("n01", 0, 0, 49, 9))),
        ("4", marks((40, 20))),
    ):
        write(boxes / f"ILSVRC2012_val_{name}.xml", content)
        picture(pictures / f"ILSVRC2012_val_{name}.JPEG")
    picture(pictures / "ILSVRC2012_val_5.JPEG")
    with pytest.raises(InputError, match=r"LOC_synset_mapping\.txt"):
        open_data(tmp_path)
    write(tmp_path / "LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 goldfish\n")
    source = open_data(tmp_path)
    (photo,) = source
    assert photo.objects == (ObjectAnnotation("tench, Tinca tinca", ((0, 0, 0.25, 0.5), (0.75, 0.5, 1, 1))),)
    bad = [line.removeprefix("ILSVRC2012_val_") for line in source.bad]
    assert bad[0] == "2: 'n99' is missing"
    assert bad[1].startswith("3: expected a box within")
    assert bad[2] == "4: no object in its XML file"
    assert bad[3].endswith("5.xml: no such file")


# Folders


def test_a_folder_of_classes_and_groups(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/deep/2.PNG", "dog/3.jpg", "dog/cut.jpg", ".hidden/4.png"):
        picture(tmp_path / name)
    truncate(tmp_path / "dog/cut.jpg")
    source = open_data(tmp_path)
    assert [(p.name, p.objects[0].label, p.group) for p in source] == [
        ("cat/1.png", "cat", ""), ("cat/deep/2.PNG", "cat", ""), ("dog/3.jpg", "dog", "")
    ]  # fmt: skip
    assert [line.split(":")[0] for line in source.bad] == ["dog/cut.jpg"]
    rows = "file,group,label\ncat/1.png,indoors,\ndog/3.jpg,outdoors,wolf\ngone.png,indoors,\ncat/deep/2.PNG,,\n"
    write(tmp_path / "groups.csv", rows)
    write(tmp_path / "other.csv", "a,b\n")
    for spec in (tmp_path, tmp_path / "groups.csv"):
        source = open_data(spec)
        assert len(source) == 5
        assert [(p.objects[0].label, p.group) for p in source] == [("cat", "indoors"), ("wolf", "outdoors")]
        assert [line.split(":")[0] for line in source.bad] == ["dog/cut.jpg", "gone.png", "cat/deep/2.PNG"]
    with pytest.raises(InputError, match="expected the columns file and group"):
        open_data(tmp_path / "other.csv")
    write(tmp_path / "more.csv", "group,file\n")
    with pytest.raises(InputError, match="one CSV file with file and group, got 2"):
        open_data(tmp_path)


def test_plain_pictures_and_splits(tmp_path: Path) -> None:
    picture(tmp_path / "plain/a.png")
    assert [(p.name, p.objects) for p in open_data(tmp_path / "plain")] == [("a.png", ())]
    picture(tmp_path / "split/train/cat/a.png")
    picture(tmp_path / "split/val/cat/a.png")
    with pytest.raises(InputError, match="expected one split, got train, val"):
        open_data(tmp_path / "split")
    assert next(iter(open_data(tmp_path / "split/val"))).objects == (ObjectAnnotation("cat"),)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "readme.md", "nothing")
    with pytest.raises(InputError, match="no such file or folder"):
        open_data(tmp_path / "none")
    for spec in (tmp_path, tmp_path / "readme.md"):
        with pytest.raises(InputError, match="not a data set of a known layout; expected a Parquet file, COCO's"):
            open_data(spec)
    with pytest.raises(InputError, match="got int"):
        open_data(3)
    with pytest.raises(InputError, match="no such folder; expected the pictures of"):
        open_data(tmp_path, tmp_path / "none")
    (tmp_path / "annotations").mkdir()
    write(tmp_path / "annotations/instances_val2017.json", {})
    with pytest.raises(InputError, match=r"expected one of COCO's files, such as .*instances_val2017.json; name it"):
        open_data(tmp_path)


# Tables


def photos_row(name: str, image: Any, *box: float, last: int = 1) -> dict[str, Any]:
    phrase = {"caption": 0, "first_word": 0, "last_word": last, "text": "A dog", "types": ["animals"], "boxes": [list(box)]}
    return {"image": image, "image_id": name, "captions": ["A dog runs ."], "phrases": [phrase], "group": "g"}


def test_rows_of_photos(tmp_path: Path) -> None:
    from datasets import Dataset

    grey = Image.new("L", (16, 8))
    rows = [
        photos_row("good", grey, 0, 0, 0.5, 1), photos_row("outside", grey, 0, 0, 1.5, 1), photos_row("inverted", grey, 0.5, 0, 0.2, 1),
        photos_row("wordless", grey, 0, 0, 1, 1, last=9),
    ]  # fmt: skip
    made = Dataset.from_list(rows)
    made.to_parquet(str(tmp_path / "photos.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    for spec in (made, tmp_path / "photos.parquet", tmp_path / "saved"):
        source = open_data(spec)
        (photo,) = source
        assert (len(source), photo.name, photo.group, photo.image.mode) == (4, "good", "g", "RGB")
        assert photo.phrases[0].boxes == ((0, 0, 0.5, 1),)
        assert [line.split(":")[0] for line in source.bad] == ["outside", "inverted", "wordless"]
        assert "expected a box x0 < x1" in source.bad[0]
        assert "to name words of one caption" in source.bad[2]


def test_rows_of_classes_and_of_captions(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features
    from datasets import Image as Column

    path = picture(tmp_path / "on_its_side.jpg", orientation=6)
    cut = picture(tmp_path / "cut.jpg")
    truncate(cut)
    features = Features({"image": Column(), "label": ClassLabel(names=["cat", "dog"])})
    made = Dataset.from_dict({"image": [str(path), str(cut), None, str(path)], "label": [1, 0, 0, -1]}, features=features)
    source = open_data(made)
    (photo,) = source
    assert photo.objects == (ObjectAnnotation("dog"),)
    assert photo.image.size == (20, 40)  # upright
    assert [line.split(":")[0] for line in source.bad] == ["1", "2", "3"]
    assert source.bad[2] == "3: expected a label from 0 to 1, got -1"
    captioned = Dataset.from_dict({"image": [str(path)], "caption": ["A dog, asleep."]}).cast_column("image", Column())
    assert next(iter(open_data(captioned))).captions == (("a", "dog", ",", "asleep", "."),)
    with pytest.raises(InputError, match=r"expected one split of a data set, got all of train; give one, as data\['train'\]"):
        open_data(DatasetDict({"train": made}))
    DatasetDict({"train": captioned}).save_to_disk(str(tmp_path / "all"))
    with pytest.raises(InputError, match="expected one split of a data set, got train"):
        open_data(tmp_path / "all")
    assert len(open_data(tmp_path / "all" / "train")) == 1
    with pytest.raises(InputError, match="got a stream"):
        table(made.to_iterable_dataset())
    with pytest.raises(InputError, match="expected a column image"):
        table(made.remove_columns("image"))


@pytest.mark.parametrize("photos", [False, True], ids=["labels", "captions"])
@pytest.mark.parametrize("declared", [False, True], ids=["plain", "declared"])
def test_an_address_in_a_table_is_never_followed(
    photos: bool, declared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a file elsewhere read; a file beside the table is."""
    import io
    import socket

    import datasets
    import pyarrow
    import pyarrow.parquet

    def forbidden(*told: Any, **more: Any) -> Any:
        raise AssertionError(f"something is fetched: {told}")

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    png = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 0, 0)).save(png, "PNG")
    picture(tmp_path / "elsewhere.png")
    picture(tmp_path / "in" / "beside.png")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "in" / "pipe.png").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "in" / "pipe.png")
    inside = [{"bytes": png.getvalue(), "path": "http://127.0.0.1:9/a.png"}, {"bytes": None, "path": "beside.png"}]
    refused = [
        "http://127.0.0.1:9/a.png", "https://127.0.0.1:9/a.png", "hf://datasets/a/b.png", "s3://a/b.png", "file:///etc/passwd",
        "zip://a.png::http://127.0.0.1:9/a.zip", str(tmp_path / "elsewhere.png"), "../elsewhere.png", "/etc/passwd", "link.png", "pipe.png", "x" * 300,
    ]  # fmt: skip
    images = [*inside, *({"bytes": None, "path": path} for path in refused), {"bytes": None, "path": None}, {"bytes": b"no picture", "path": None}, None]  # fmt: skip
    rows: dict[str, Any] = {"image": images, "other": images}
    if photos:
        rows |= {
            "captions": [["a wall"]] * len(images),
            "phrases": [photos_row("x", None, 0, 0, 1, 1)["phrases"]] * len(images),
        }
        rows["captions"] = [["a dog runs ."]] * len(images)
    else:
        rows["label"] = ["wall"] * len(images)
    made = pyarrow.table(rows)
    if declared:
        features = datasets.Features.from_arrow_schema(made.schema)
        features["image"] = features["other"] = datasets.Image()
        made = made.replace_schema_metadata(datasets.Dataset.from_dict({"image": [], "other": []}, features=datasets.Features({k: datasets.Image() for k in ("image", "other")})).data.schema.metadata)  # fmt: skip
        made = pyarrow.Table.from_arrays(made.columns, schema=features.arrow_schema)
    pyarrow.parquet.write_table(made, tmp_path / "in" / "table.parquet")
    source = open_data(tmp_path / "in" / "table.parquet")
    read_ = list(source)
    assert [one.image.size for one in read_] == [(16, 8), (40, 20)]
    assert len(source.bad) == len(images) - 2
    assert sum("which is not followed" in line for line in source.bad) == 6
    assert sum("expected a picture in the table or in" in line for line in source.bad) == 4
    assert not any("AssertionError" in line for line in source.bad)


# Scenes


def test_scenes_know_every_pixel() -> None:
    from mmgradcam.scenes.captions import captions_of
    from mmgradcam.scenes.questions import questions_of
    from mmgradcam.scenes.render import render
    from mmgradcam.scenes.scene import make_scene

    source = open_data("scenes")
    assert (source.name, len(source)) == ("scenes:test", 10_000)
    photo = next(source.since(41))
    assert photo is not None
    scene = make_scene(90_041)
    masks = render(scene).masks
    caption = captions_of(scene, 3)[0]
    located = [i for i, role in enumerate(caption.roles) if role in ("kind", "color") and caption.refers[i]]
    mine = [phrase for phrase in photo.phrases if phrase.caption == 0]
    assert [phrase.first for phrase in mine] == located
    assert located
    for phrase in mine:
        assert photo.captions[0][phrase.first] == phrase.text
        assert phrase.types == (caption.roles[phrase.first],)
        assert (phrase.pixels == masks[list(caption.refers[phrase.first])].any(0)).all()
        assert (where(phrase, masks.shape[1:]) == phrase.pixels).all()
    for mine_, theirs in zip(photo.questions, questions_of(scene), strict=True):
        assert (mine_.text, mine_.kind, mine_.answers) == (theirs.text, theirs.kind, (theirs.answer,))
        assert (mine_.pixels is not None) == (len(theirs.refers) == 1)
        assert mine_.pixels is None or (mine_.pixels == masks[theirs.refers[0]]).all()
    assert sum(int(one.pixels.sum()) for one in photo.objects if one.pixels is not None) == masks.any(0).sum()
    assert next(iter(open_data("scenes:validation"))).name == "scene-50000"
    with pytest.raises(InputError, match='got "scenes:train"'):
        open_data("scenes:train")


@pytest.mark.data
def test_the_photos_on_hand_are_read_whole() -> None:
    source = open_data(data() / "flickr8k" / "val.parquet")
    photos = list(source.since(950))
    assert (len(source), len(photos), source.bad) == (1000, 50, [])
    assert sum(len(photo.phrases) for photo in photos if photo) > 500


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec(compile(block, "docs/data.md", "exec"), {})
    assert capsys.readouterr().out.startswith("scene-90000 there is a large purple ring")
