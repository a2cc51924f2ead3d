"""Metrics of whole images or captions, computed from all rows of one method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from mmgradcam.evaluation.queries import TOP
from mmgradcam.metrics import f1_iou, localization_error, pointing_with_reject, reject_threshold
from mmgradcam.metrics.definition import SHARE, metric

Row = Mapping[str, Any]

ABSENT = "absent"
"""Kind of a class that is not in the image; only a classifier is asked about such."""
SELVARAJU, RUSSAKOVSKY, LI = (
    "Selvaraju et al. 2017",
    "Russakovsky et al. 2015",
    "Li et al. 2025 (formula; the protocol differs)",
)


@metric(
    "localization_error_top_1",
    higher_is_better=False,
    range=SHARE,
    description="share of images whose likeliest class is not correct and localized by a box with an IoU of 0.5",
    source=RUSSAKOVSKY,
    level="rows",
    of=("box_found",),
)
def localization_error_top_1(rows: Iterable[Row]) -> float | None:
    """ILSVRC's localization error of a classifier; images whose class has no box do not count."""
    return _localization_error(rows, 1)


@metric(
    "localization_error_top_5",
    higher_is_better=False,
    range=SHARE,
    description="share of images none of whose five likeliest classes is correct and localized by a box with an IoU of 0.5",
    source=RUSSAKOVSKY,
    level="rows",
    of=("box_found",),
)
def localization_error_top_5(rows: Iterable[Row]) -> float | None:
    """As `localization_error_top_1`, of the five likeliest classes."""
    return _localization_error(rows, 5)


@metric(
    "pointing_with_reject",
    higher_is_better=True,
    range=SHARE,
    description="pointing game with the reject option, without tolerance, of each image's five likeliest classes",
    source=SELVARAJU,
    level="rows",
    of=("top", "pointing"),
)
def pointing_with_reject_option(rows: Iterable[Row]) -> float | None:
    """The pointing game with the reject option, of a classifier.

    As in the paper, of each image's five likeliest classes; classes that are present without a known place do not count. The
    paper does not say how its threshold was chosen; here each half of the images is judged by the threshold that is best on
    the other. Not a number where all images are in one half.
    """
    return _pointing_with_reject(rows, "pointing")


@metric(
    "pointing_with_reject_15px",
    higher_is_better=True,
    range=SHARE,
    description="pointing game with the reject option, within 15 pixels, of each image's five likeliest classes",
    source=SELVARAJU,
    level="rows",
    of=("top", "pointing_15px"),
)
def pointing_with_reject_option_15px(rows: Iterable[Row]) -> float | None:
    """As `pointing_with_reject_option`, with the tolerance of Zhang et al. 2016."""
    return _pointing_with_reject(rows, "pointing_15px")


@metric(
    "word_f1_iou",
    higher_is_better=True,
    range=SHARE,
    description="harmonic mean of noun_iou and function_word_iou",
    source=LI,
    level="rows",
    of=("noun_iou", "function_word_iou"),
)
def word_f1_iou(rows: Iterable[Row]) -> float | None:
    """Harmonic mean of the means of `noun_iou` and `function_word_iou`."""
    values: dict[str, list[float]] = {"noun_iou": [], "function_word_iou": []}
    for row in rows:
        for name, some in values.items():
            if row.get(name) is not None:
                some.append(row[name])
    return f1_iou(*(float(np.mean(some)) for some in values.values())) if all(values.values()) else None


@metric(
    "seed_mean_iou",
    higher_is_better=True,
    range=SHARE,
    description="mean over classes of the IoU of their segmentation seeds, without the background",
    source=SELVARAJU,
    level="rows",
    of=("seed_intersection", "seed_union"),
)
def seed_mean_iou(rows: Iterable[Row]) -> float | None:
    """Mean IoU of segmentation seeds: of each class the pixels of all images in one count, as VOC defines it.

    The background, which VOC counts as a class too, is left out.
    """
    shared: dict[str, float] = defaultdict(float)
    either: dict[str, float] = defaultdict(float)
    classes = False
    for row in rows:
        classes |= row["kind"] == ABSENT
        if row.get("seed_union") is not None:
            shared[row["target"]] += row["seed_intersection"]
            either[row["target"]] += row["seed_union"]
    return float(np.mean([shared[name] / either[name] for name in either])) if classes and either else None


def _localization_error(rows: Iterable[Row], top: int) -> float | None:
    correct, located, classes = [], [], False
    for some in _ranked(rows):
        classes |= any(row["kind"] == ABSENT for row in some)
        if any(row.get("box_found") is not None for row in some):
            correct.append([bool(row["correct"]) for row in some[:TOP]])
            located.append([bool(row["box_found"]) for row in some[:TOP]])
    return localization_error(correct, located, top) if classes and correct else None


def _pointing_with_reject(rows: Iterable[Row], hit: str) -> float | None:
    halves: list[list[tuple[float, bool, bool]]] = [[], []]
    classes = placed = False
    for some in _ranked(rows):
        classes |= any(row["kind"] == ABSENT for row in some)
        placed |= any(row.get(hit) is not None for row in some)
        likeliest = [row for row in some[:TOP] if not row["correct"] or row.get(hit) is not None]
        halves[some[0]["sample"] % 2] += [(row["top"], bool(row[hit]), bool(row["correct"])) for row in likeliest]
    if not (classes and placed):
        return None
    total, count = 0.0, 0
    for own, other in (halves, halves[::-1]):
        if own and other:
            threshold = reject_threshold(*_columns(other))
            total += len(own) * pointing_with_reject(*_columns(own), threshold)
            count += len(own)
    return total / count if count else float("nan")


def _ranked(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows of each image that have a probability, the likeliest first."""
    for _, some in groupby(rows, key=lambda row: row["sample"]):
        likely = [row for row in some if row["probability"] is not None]
        if likely:
            yield sorted(likely, key=lambda row: -row["probability"])


def _columns(some: list[tuple[float, bool, bool]]) -> tuple[list[float], list[bool], list[bool]]:
    return [top for top, _, _ in some], [hit for _, hit, _ in some], [correct for _, _, correct in some]
