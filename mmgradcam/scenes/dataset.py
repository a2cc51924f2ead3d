"""Scenes as a `datasets` dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from mmgradcam.scenes.captions import captions_of
from mmgradcam.scenes.questions import questions_of
from mmgradcam.scenes.render import render
from mmgradcam.scenes.scene import Scene, make_scene
from mmgradcam.scenes.splits import seeds

CAPTIONS = 3
"""Captions per scene; questions are one of each kind that the scene allows."""

_INDICES = List(Value("int32"))
FEATURES = Features(
    {
        "image": Image(),
        "segments": Image(),
        "seed": Value("int64"),
        "things": List(
            {
                **{name: Value("string") for name in ("kind", "color", "size", "material")},
                "x": Value("float64"),
                "y": Value("float64"),
                "box": List(Value("int32"), length=4),
            }
        ),
        "captions": List({"words": List(Value("string")), "roles": List(Value("string")), "refers": List(_INDICES)}),
        "questions": List({"kind": Value("string"), "text": Value("string"), "answer": Value("string"), "refers": _INDICES}),
    }
)
"""Columns. `segments` is a grey picture whose pixels are 0 for ground and i + 1 for the visible part of thing i; `refers`
holds indices of things: for each word of a caption those it speaks of, for a question those its answer rests on; boxes are
x0, y0, x1, y1 in pixels, far edges exclusive."""


def scene_dataset(split: str = "test", count: int = 1000, start: int = 0, side: int = 128) -> Dataset:
    """Rendered scenes with their truth; the same arguments give the same bytes.

    Args:
        split: "train", "validation" or "test".
        count: number of scenes.
        start: leave out that many scenes of the split.
        side: width and height of the pictures in pixels.

    Returns:
        A dataset with the columns of `FEATURES`.
    """
    made = Dataset.from_list([_row(make_scene(seed), side) for seed in seeds(split, count, start)], features=FEATURES)
    return made


def scene_rows(split: str = "test", count: int = 1000, start: int = 0, side: int = 128) -> Iterator[dict[str, Any]]:
    """The same rows one at a time, never all in memory."""
    return (_row(make_scene(seed), side) for seed in seeds(split, count, start))


def _row(scene: Scene, side: int) -> dict[str, Any]:
    picture = render(scene, side)
    segments = sum((i + 1) * mask.astype(np.uint8) for i, mask in enumerate(picture.masks))
    return {
        "image": picture.image,
        "segments": Pillow.fromarray(np.asarray(segments, dtype=np.uint8)),
        "seed": scene.seed,
        "things": [
            {"kind": t.kind, "color": t.color, "size": t.size, "material": t.material, "x": t.x, "y": t.y, "box": box.tolist()}
            for t, box in zip(scene.objects, picture.boxes, strict=True)
        ],
        "captions": [{"words": c.words, "roles": c.roles, "refers": c.refers} for c in captions_of(scene, CAPTIONS)],
        "questions": [{"kind": q.kind, "text": q.text, "answer": q.answer, "refers": q.refers} for q in questions_of(scene)],
    }
