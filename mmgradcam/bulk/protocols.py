"""Figures of the papers that are of whole pictures or captions, not of single targets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mmgradcam import draw
from mmgradcam.bulk.asked import TOP
from mmgradcam.bulk.audit import Audit
from mmgradcam.data.records import where
from mmgradcam.data.stream import Source
from mmgradcam.errors import InputError
from mmgradcam.explaining import AnyMethod, compare
from mmgradcam.metrics import f1_iou, func_iou, localization_error, obj_iou, otsu, pointing_with_reject, reject_threshold
from mmgradcam.task import Task

FUNCTION_WORDS = frozenset(
    {
        "a",
        "an",
        "the",
        "and",
        "or",
        "but",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "that",
        "which",
        "who",
        "it",
        "its",
        "there",
        "this",
        "these",
        "those",
    }
)
"""Words that name nothing to be seen; as the code of Token Activation Map, without prepositions and numbers."""


def localization_errors(made: Audit, method: str) -> dict[int, float]:
    """ILSVRC's top-1 and top-5 localization error in percent, of a classifier's audit with the metric `box`.

    Pictures of which nobody said where their class is do not count.

    Raises:
        InputError: the audit has no boxes.
    """
    of: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for row in made.rows:
        if row["method"] == method and row["probability"] is not None:
            of[row["record"]].append(row)
    boxed = [some for some in of.values() if any(row.get("box_found") is not None for row in some)]
    if not boxed:
        raise InputError("localization error: expected an audit of a classifier with the metric box, of things with boxes")
    ranked = [sorted(some, key=lambda row: -row["probability"]) for some in boxed]
    right = [[bool(row["right"]) for row in some] for some in ranked]
    located = [[bool(row["box_found"]) for row in some] for some in ranked]
    return {top: localization_error(right, located, top) for top in (1, 5)}


def pointing_with_rejects(made: Audit, method: str) -> float:
    """The pointing game with the reject option, 0..1, of a classifier's audit with the metrics `pointing` and `tops`.

    As in the paper, of each picture's five likeliest classes; those that are there, and nobody said where, do not count. The
    paper does not say how its threshold was found; here each half of the pictures is judged by the threshold that is best on
    the other. Not a number where all pictures lie in one half.

    Raises:
        InputError: the audit lacks one of the metrics.
    """
    of: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for row in made.rows:
        if row["method"] == method and row["probability"] is not None:
            of[row["record"]].append(row)
    likeliest = [row for some in of.values() for row in sorted(some, key=lambda row: -row["probability"])[:TOP]]
    rows = [row for row in likeliest if not row["right"] or row.get("peak") is not None]
    if not rows or any("top" not in row or "peak" not in row for row in rows):
        raise InputError("pointing with reject: expected an audit of a classifier with the metrics pointing and tops")
    halves = [[row for row in rows if row["record"] % 2 == half] for half in (0, 1)]
    told, count = 0.0, 0
    for own, other in (halves, halves[::-1]):
        if not own or not other:
            continue
        threshold = reject_threshold(*_columns(other))
        told, count = told + len(own) * pointing_with_reject(*_columns(own), threshold), count + len(own)
    return told / count if count else float("nan")


def wholes(made: Audit, method: str) -> dict[str, float]:
    """All figures of this kind that an audit has the columns for."""
    there = set(made.columns())
    classes = any(row["kind"] == "absent" for row in made.rows)
    found: dict[str, float] = {}
    if classes and any(row.get("box_found") is not None for row in made.rows):
        found |= {f"localization_error_top_{top}": error for top, error in localization_errors(made, method).items()}
    if classes and "top" in there and any(row.get("peak") is not None for row in made.rows):
        found["pointing_with_reject"] = pointing_with_rejects(made, method)
    return found


def _columns(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[bool], list[bool]]:
    return [row["top"] for row in rows], [bool(row["peak"]) for row in rows], [bool(row["right"]) for row in rows]


def token_activation(
    task: Task, data: Source, methods: Sequence[AnyMethod], limit: int, taps: Sequence[Any] | None = None
) -> list[dict[str, float]]:
    """Obj-IoU, Func-IoU and F1-IoU of Token Activation Map, in percent, of captions that people wrote.

    Of each caption with phrases, the phrases' last words against where they are, and its function words, each caption's maps
    on one scale: divided by the largest value of all its maps on the picture.

    Args:
        task: a captioner that is asked with `phrases`.
        data: photos with captions and phrases.
        methods: as of `compare`.
        limit: number of records.
        taps: as of `explain`.

    Returns:
        For each method `obj`, `func` and `f1`, and the `captions` they are of.
    """
    objects: list[list[float]] = [[] for _ in methods]
    functions: list[list[float]] = [[] for _ in methods]
    photos = (photo for photo, _ in zip(data, range(limit), strict=False))
    for photo in photos:
        texts = sorted({phrase.caption for phrase in photo.phrases})[:1]
        for number in texts:
            words = list(photo.captions[number])
            heads = {p.last: p for p in photo.phrases if p.caption == number}
            empty = [i for i, word in enumerate(words) if word in FUNCTION_WORDS and i not in heads]
            if not heads or not empty:
                continue
            query = [(words, i, i) for i in [*heads, *empty]]
            for m, one in enumerate(compare(task, [photo.image], methods, taps=taps, phrases=query)[0]):
                raw = draw.upsample(one.maps.cpu(), one.box, (photo.image.height, photo.image.width))
                heats = [part.numpy() for part in raw / raw.max().clamp(min=torch.finfo(raw.dtype).tiny)]
                nouns = heats[: len(heads)]
                masks = [where(p, (h.shape[0], h.shape[1])) for p, h in zip(heads.values(), nouns, strict=True)]
                objects[m] += [obj_iou(h, k) for h, k in zip(nouns, masks, strict=True) if k is not None]
                functions[m].append(func_iou(heats[len(heads) :], float(np.mean([otsu(h) for h in nouns]))))
    made = []
    for obj, func in zip(objects, functions, strict=True):
        if not obj:
            raise InputError(f"{data.name}: no caption has both a phrase with a place and a function word")
        both = 100 * float(np.mean(obj)), 100 * float(np.mean(func))
        made.append({"obj": both[0], "func": both[1], "f1": f1_iou(*both), "captions": float(len(func))})
    return made
