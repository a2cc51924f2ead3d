"""Figures of the papers that are of whole pictures or captions, not of single targets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmgradcam.bulk.asked import TOP
from mmgradcam.bulk.audit import Audit
from mmgradcam.errors import InputError
from mmgradcam.metrics import f1_iou, localization_error, pointing_with_reject, reject_threshold


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


def pointing_with_rejects(made: Audit, method: str, hit: str = "peak") -> float:
    """The pointing game with the reject option, 0..1, of a classifier's audit with the metrics `pointing` and `tops`.

    `hit` names the column of hits: "peak", without tolerance, or "peak_15px", with that of Zhang et al. (`pointing_15px`).

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
    rows = [row for row in likeliest if not row["right"] or row.get(hit) is not None]
    if not rows or any("top" not in row or hit not in row for row in rows):
        raise InputError("pointing with reject: expected an audit of a classifier with the metrics pointing and tops")
    halves = [[row for row in rows if row["record"] % 2 == half] for half in (0, 1)]
    told, count = 0.0, 0
    for own, other in (halves, halves[::-1]):
        if not own or not other:
            continue
        threshold = reject_threshold(*_columns(other, hit))
        told, count = told + len(own) * pointing_with_reject(*_columns(own, hit), threshold), count + len(own)
    return told / count if count else float("nan")


def seed_mean_iou(made: Audit, method: str) -> float:
    """Mean over classes of their seeds' IoU, 0..1: of each class all pictures' pixels in one count, as VOC has it.

    The background, which VOC counts as a class too, is left out.

    Raises:
        InputError: the audit lacks the metric `seeds`, or no seed has a place to be held against.
    """
    shared: dict[str, float] = defaultdict(float)
    either: dict[str, float] = defaultdict(float)
    for row in made.rows:
        if row["method"] == method and row.get("seed_either") is not None:
            shared[row["target"]] += row["seed_shared"]
            either[row["target"]] += row["seed_either"]
    if not either:
        raise InputError("mean IoU of seeds: expected an audit with the metric seeds on data that say where things are")
    return float(np.mean([shared[name] / either[name] for name in either]))


def wholes(made: Audit, method: str) -> dict[str, float]:
    """All figures of this kind that an audit has the columns for."""
    there = set(made.columns())
    classes = any(row["kind"] == "absent" for row in made.rows)
    found: dict[str, float] = {}
    if classes and any(row.get("box_found") is not None for row in made.rows):
        found |= {f"localization_error_top_{top}": error for top, error in localization_errors(made, method).items()}
    for hit, name in (("peak", "pointing_with_reject"), ("peak_15px", "pointing_with_reject_15px")):
        if classes and "top" in there and any(row.get(hit) is not None for row in made.rows):
            found[name] = pointing_with_rejects(made, method, hit)
    if {"noun_iou", "function_word_iou"} <= there:
        means = made.figures(method)
        if {"noun_iou", "function_word_iou"} <= set(means):
            found["word_f1_iou"] = f1_iou(means["noun_iou"].mean, means["function_word_iou"].mean)
    if classes and any(row.get("seed_either") is not None for row in made.rows):
        found["seed_mean_iou"] = seed_mean_iou(made, method)
    return found


def _columns(rows: Sequence[dict[str, Any]], hit: str) -> tuple[list[float], list[bool], list[bool]]:
    return [row["top"] for row in rows], [bool(row[hit]) for row in rows], [bool(row["right"]) for row in rows]
