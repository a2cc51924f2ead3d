"""Metrics of the map as a segmentation: IoU by Otsu's threshold, of words, and of segmentation seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmgradcam import metrics
from mmgradcam.errors import InputError
from mmgradcam.evaluation.batch import Batch, Column, Values
from mmgradcam.metrics.definition import SHARE, metric
from mmgradcam.render import heatmaps
from mmgradcam.utils.naming import distinct_name

SELVARAJU, LI = "Selvaraju et al. 2017", "Li et al. 2025 (formula; the protocol differs)"

FUNCTION_WORDS = frozenset({
    "a", "an", "the", "and", "or", "but", "is", "are", "was", "were", "be", "been", "being", "that", "which", "who", "it",
    "its", "there", "this", "these", "those",
})  # fmt: skip
"""Words that name nothing to be seen; as the code of Token Activation Map, without prepositions and numbers."""


@metric(
    "obj_iou",
    higher_is_better=True,
    range=SHARE,
    description="IoU of the object with the map, thresholded by Otsu's method",
    source="Otsu 1979; Li et al. 2025",
)
def iou(batch: Batch) -> dict[str, Column]:
    """IoU of the map, thresholded by Otsu's method, with the object."""
    return {"obj_iou": batch.placed(metrics.obj_iou)}


@metric(
    "noun_iou",
    higher_is_better=True,
    range=SHARE,
    description="IoU of a noun's object with its map, thresholded by Otsu's method, a caption's maps on one scale",
    source=LI,
)
@metric(
    "function_word_iou",
    higher_is_better=True,
    range=SHARE,
    description="share of function words' maps below the nouns' mean threshold",
    source=LI,
)
def word_iou(batch: Batch) -> dict[str, Column]:
    """IoU of nouns' maps with their objects, and how much of function words' maps is below the nouns' threshold.

    The formulas are Token Activation Map's (Li et al. 2025); the protocol is not: captions are given, not generated; nouns are
    those that annotators located, not those that name a COCO class; a word's map is that of all its tokens, not of the best
    one. The values are therefore not comparable with the paper's Obj-IoU, Func-IoU and F1-IoU.

    Nouns are the last words of phrases with a place. A caption's maps share one scale: they are divided by the largest value
    of them all. Captioners that are asked for phrases explain the single words again, one more encode per method.
    """
    obj: list[float | None] = [None] * len(batch.rows)
    func: list[float | None] = [None] * len(batch.rows)
    first = 0
    for e, explanation in enumerate(batch.explanations):
        masks: list[Any] = batch.masks[first : first + len(explanation)]
        query = explanation.metadata.query
        texts: dict[str, list[int]] = {}
        for k, truth in enumerate(batch.truths[e]):
            if truth.placed is not None and masks[k] is not None:
                texts.setdefault(truth.text, []).append(k)
        for nouns in texts.values():
            if "phrases" in query:
                words, heads = list(query["phrases"][nouns[0]][0]), [query["phrases"][k][2] for k in nouns]
                empty = [i for i, word in enumerate(words) if word in FUNCTION_WORDS and i not in heads]
                asked = explanation.task.targets(torch.empty(1), phrases=[(words, i, i) for i in [*heads, *empty]])
                again = explanation.explainer
                maps = again.of([asked], [again.view.pixels])[0].maps if empty else torch.empty(0)
            else:
                empty = [k for k, label in enumerate(explanation.labels) if label.lower() in FUNCTION_WORDS and k not in nouns]
                maps = explanation.maps[[*nouns, *empty]]
            if not empty:
                continue
            picture = explanation.picture
            raw = heatmaps.upsample(maps.cpu(), explanation.box, (picture.height, picture.width))
            heats = [part.numpy() for part in raw / raw.max().clamp(min=torch.finfo(raw.dtype).tiny)]
            for k, own in zip(nouns, heats, strict=False):
                obj[first + k] = metrics.obj_iou(own, masks[k])
            level = float(np.mean([metrics.otsu(own) for own in heats[: len(nouns)]]))
            func[first + nouns[0]] = metrics.func_iou(heats[len(nouns) :], level)
        first += len(explanation)
    return {"noun_iou": obj, "function_word_iou": func}


@metric(
    "seed_intersection",
    higher_is_better=None,
    range=(0.0, None),
    description="pixels in both the segmentation seed and the object",
    source=SELVARAJU,
)
@metric(
    "seed_union",
    higher_is_better=None,
    range=(0.0, None),
    description="pixels in the segmentation seed or the object",
    source=SELVARAJU,
)
def seeds(batch: Batch) -> dict[str, Column]:
    """Segmentation seeds of a classifier's true classes, as a segmenter is trained on.

    Every true class is drawn, also where its place is unknown; there nothing is counted. With `--out` the seeds are written as
    PNG masks with VOC's colors into `seeds/METHOD/IMAGE.png`.
    """
    if not batch.classes:
        raise InputError("seeds: expected a classifier, whose labels say which class a seed is of; leave seeds out")
    shared: list[float | None] = [None] * len(batch.rows)
    either: list[float | None] = [None] * len(batch.rows)
    at = {row: n for n, row in enumerate(batch.rows)}
    for e, explanation in enumerate(batch.explanations):
        rows = [at[e, k] for k, truth in enumerate(batch.truths[e]) if truth.right]
        if not rows:
            continue
        drawn = metrics.seed_mask([batch.heats[n] for n in rows], list(range(1, len(rows) + 1)))
        for label, n in enumerate(rows, 1):
            if (mask := batch.masks[n]) is not None:
                shared[n], either[n] = float(((drawn == label) & mask).sum()), float(((drawn == label) | mask).sum())
        if batch.out is not None:
            method = batch.methods[e % len(batch.methods)]
            classes = [batch.classes[explanation.labels[batch.rows[n][1]]] for n in rows]
            if max(classes) >= metrics.NOBODY:
                raise InputError(
                    f"seeds: a PNG mask has room for 254 classes, got number {max(classes)}; measure without --out"
                )
            place = np.array([0, *classes, *[0] * (255 - len(classes))], np.uint8)
            place[metrics.NOBODY] = metrics.NOBODY
            folder = batch.out / "seeds" / distinct_name(method)
            metrics.save_seed(place[drawn], folder / f"{distinct_name(batch.names[e])}.png")
    return {"seed_intersection": shared, "seed_union": either}


@metric(
    "seed_iou",
    higher_is_better=True,
    range=SHARE,
    description="IoU of segmentation seeds, the pixels of all targets in one count",
    source=SELVARAJU,
    level="means",
    of=("seed_intersection", "seed_union"),
)
def seed_iou(intersection: Values, union: Values) -> Values:
    """The pixels of all targets in one count."""
    return intersection / union
