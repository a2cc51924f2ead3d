"""Pictures of products, whole or cracked, as an image folder: scenes in which one object may have a crack, its place known.

    python scripts/papers/defect_data.py --out runs/defects        # train, validation and test, with boxes.json beside

Labels are of whole pictures. The boxes are for measuring maps, never for training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmgradcam.images.regions import mask_box
from mmgradcam.scenes.render import Picture, render
from mmgradcam.scenes.scene import make_scene

COUNTS = {"train": 1600, "validation": 300, "test": 500}
FIRST = {"train": 0, "validation": 1_000_000, "test": 2_000_000}
SIDE, CRACKED, SOUND = 224, "cracked", "whole"


def cracked(picture: Picture, rng: np.random.Generator) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """The picture with a crack across its largest object, and the crack's box."""
    mask = picture.masks[int(picture.masks.sum((1, 2)).argmax())]
    x0, y0, x1, y1 = mask_box(mask)
    upright = rng.random() < 0.5
    along = np.linspace(0.05, 0.95, 9)
    across = np.clip(0.5 + np.cumsum(rng.normal(0, 0.09, 9)), 0.1, 0.9)
    xs, ys = (across, along) if upright else (along, across)
    points = [(float(x0 + x * (x1 - x0)), float(y0 + y * (y1 - y0))) for x, y in zip(xs, ys, strict=True)]
    line = Image.new("L", picture.image.size)
    pen = ImageDraw.Draw(line)
    pen.line(points, fill=255, width=3, joint="curve")
    for x, y in points[2:-2:2]:
        dx, dy = rng.normal(0, 7, 2)
        pen.line([(x, y), (x + dx, y + dy)], fill=200, width=2)
    drawn = np.asarray(line.filter(ImageFilter.GaussianBlur(0.6)), dtype=np.float64) / 255 * mask
    pixels = np.asarray(picture.image, dtype=np.float64) * (1 - 0.85 * drawn[..., None])
    edges = mask_box(drawn > 0.2)
    return Image.fromarray(pixels.round().astype(np.uint8)), (edges[0], edges[1], edges[2], edges[3])


def make(split: str, index: int) -> tuple[Image.Image, list[int] | None]:
    """The index-th picture of a split and the box of its crack, if it has one."""
    seed = FIRST[split] + index
    rng = np.random.default_rng([seed, 0xDE])
    picture = render(make_scene(seed), SIDE)
    if index % 2:
        return picture.image, None
    image, box = cracked(picture, rng)
    return image, [int(v) for v in box]


def main(out: Path, share: float) -> None:
    boxes: dict[str, list[int]] = {}
    for split, count in COUNTS.items():
        for label in (CRACKED, SOUND):
            (out / split / label).mkdir(parents=True, exist_ok=True)
        for index in range(int(count * share)):
            image, box = make(split, index)
            path = out / split / (SOUND if box is None else CRACKED) / f"{index:05d}.png"
            image.save(path)
            if box is not None:
                boxes[str(path.relative_to(out))] = box
    (out / "boxes.json").write_text(json.dumps(boxes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/defects"))
    parser.add_argument("--share", type=float, default=1.0, help="part of the pictures to make")
    given = parser.parse_args()
    main(given.out, given.share)
