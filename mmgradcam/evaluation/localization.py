"""Metrics of where the heat lies: pointing game, energy, boxes, human attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mmgradcam import metrics
from mmgradcam.evaluation.batch import Batch, Column, Values, over_frames
from mmgradcam.evaluation.queries import Mask, Truth
from mmgradcam.images.regions import fill_holes
from mmgradcam.metrics.definition import CORRELATION, SHARE, metric
from mmgradcam.metrics.localization import ZHANG_TOLERANCE

PAIRS = "swapped_pairs", "swapped_hits"
ZHANG, SELVARAJU, CHATTOPADHYAY = "Zhang et al. 2016", "Selvaraju et al. 2017", "Chattopadhyay et al. 2018"


@metric(
    "correct",
    higher_is_better=True,
    range=SHARE,
    description="the target is true of the image: a class that is present, a correct answer",
    source="mmgradcam",
)
def correct(batch: Batch) -> dict[str, Column]:
    """Whether each target is true of its image, as the data set says; every row has it."""
    return {"correct": [batch.truths[e][k].right for e, k in batch.rows]}


@metric(
    "top1_accuracy",
    higher_is_better=True,
    range=SHARE,
    description="the likeliest of all classes is one of the sample's own, in the first row of each sample and method",
    source="mmgradcam",
)
def accuracy(batch: Batch) -> dict[str, Column]:
    """Whether a classifier's likeliest class is true of the image or clip; of one that can be asked for the likeliest."""
    made: list[float | None] = [None] * len(batch.rows)
    first = 0
    for explanation, truths in zip(batch.explanations, batch.truths, strict=True):
        if "top" in explanation.metadata.query and truths:
            made[first] = float(bool(truths[int(explanation.scores.argmax())].right))
        first += len(explanation)
    return {"top1_accuracy": made}


@metric(
    "pointing",
    higher_is_better=True,
    range=SHARE,
    description="the map's maximum lies on the object, without tolerance, holes of the object filled",
    source=ZHANG,
    baselines=("baseline_center", "baseline_random"),
)
@metric(
    "pointing_unfilled",
    higher_is_better=True,
    range=SHARE,
    description="the map's maximum lies on the object, without tolerance, holes of the object not filled",
    source=ZHANG,
    baselines=("baseline_center", "baseline_random"),
)
@metric(
    "pointing_swapped",
    higher_is_better=False,
    range=SHARE,
    description="the maximum of another target's map lies on this object, the mean over its others",
    source="mmgradcam",
)
@metric(
    "swapped_pairs",
    higher_is_better=None,
    range=(0.0, None),
    description="other targets of the same text or image whose objects are elsewhere",
    source="mmgradcam",
)
@metric(
    "swapped_hits",
    higher_is_better=None,
    range=(0.0, None),
    description="those of them whose map's maximum lies on this object",
    source="mmgradcam",
)
@metric(
    "baseline_center",
    higher_is_better=None,
    range=SHARE,
    description="the center of the image lies on the object",
    source=ZHANG,
)
@metric(
    "baseline_random",
    higher_is_better=None,
    range=SHARE,
    description="chance that a random point lies on the object",
    source="mmgradcam",
)
def pointing(batch: Batch) -> dict[str, Column]:
    """The pointing game without tolerance, and what the center, a random point and another target's map score.

    A map hits its object if its maximum lies in the object's mask. Of several equal maxima the first counts, and an empty map
    misses; of a clip, each frame counts. The swapped maps are those of other targets of the same text or image whose objects
    are elsewhere; for a classifier, those of likely classes that are absent count as well.
    """
    filled = [None if mask is None else _of_frames(fill_holes, mask) for mask in batch.masks]
    return {**_pointed(batch, filled), "pointing_unfilled": batch.placed(metrics.peak_in)}


@metric(
    "pointing_15px",
    higher_is_better=True,
    range=SHARE,
    description="the map's maximum lies at most 15 pixels from the object",
    source=ZHANG,
    baselines=("baseline_center_15px", "baseline_random_15px"),
)
@metric(
    "pointing_swapped_15px",
    higher_is_better=False,
    range=SHARE,
    description="the maximum of another target's map lies at most 15 pixels from this object",
    source="mmgradcam",
)
@metric(
    "baseline_center_15px",
    higher_is_better=None,
    range=SHARE,
    description="the center of the image lies at most 15 pixels from the object",
    source=ZHANG,
)
@metric(
    "baseline_random_15px",
    higher_is_better=None,
    range=SHARE,
    description="chance that a random point lies at most 15 pixels from the object",
    source="mmgradcam",
)
def pointing_15px(batch: Batch) -> dict[str, Column]:
    """The pointing game of Zhang et al. 2016: a maximum at most 15 pixels from the object hits it, and so do its baselines.

    On small images 15 pixels are a lot: compare with the two baselines.
    """
    wide = [None if m is None else _of_frames(partial(metrics.widened, tolerance=ZHANG_TOLERANCE), m) for m in batch.masks]
    return {f"{name}_15px": column for name, column in _pointed(batch, wide).items() if name not in PAIRS}


@metric(
    "pointing_swapped_pairs",
    higher_is_better=False,
    range=SHARE,
    description="the maximum of another target's map lies on this object, all pairs of targets in one count",
    source="mmgradcam",
    level="means",
    of=("swapped_hits", "swapped_pairs"),
)
def pointing_swapped_pairs(hits: Values, pairs: Values) -> Values:
    """As `pointing_swapped`, where a target counts as often as it has others: what the bundled models' cards print."""
    return hits / pairs


@metric(
    "specificity",
    higher_is_better=True,
    range=CORRELATION,
    description="pointing less pointing_swapped, of the targets that have both",
    source="mmgradcam",
    level="means",
    of=("pointing", "pointing_swapped"),
)
@metric(
    "specificity_15px",
    higher_is_better=True,
    range=CORRELATION,
    description="pointing_15px less pointing_swapped_15px, of the targets that have both",
    source="mmgradcam",
    level="means",
    of=("pointing_15px", "pointing_swapped_15px"),
)
def specificity(own: Values, swapped: Values) -> Values:
    """What a map knows of its own target, beyond that something is there."""
    return own - swapped


def _of_frames(change: Callable[[Mask], Mask], mask: Mask) -> Mask:
    """A mask (H, W) changed, or each frame of (T, H, W)."""
    return change(mask) if mask.ndim == 2 else np.stack([change(frame) for frame in mask])


def _pointed(batch: Batch, masks: Sequence[Mask | None]) -> dict[str, Column]:
    """What hits the masks: the peak, another target's, the centre, and a random point."""
    at = {row: n for n, row in enumerate(batch.rows)}
    pairs: list[tuple[float, float] | None] = []
    for (e, k), mask in zip(batch.rows, masks, strict=True):
        own = batch.truths[e][k]
        others = [j for j, t in enumerate(batch.truths[e]) if j != k and t.text == own.text and _apart(t, own)]
        hits = [over_frames(metrics.peak_in, batch.heats[at[e, j]], mask) for j in others] if mask is not None else []
        pairs.append((float(len(hits)), float(sum(hits))) if hits else None)
    return {
        "pointing": [
            None if m is None else over_frames(metrics.peak_in, h, m) for h, m in zip(batch.heats, masks, strict=True)
        ],
        "pointing_swapped": [None if pair is None else pair[1] / pair[0] for pair in pairs],
        "swapped_pairs": [None if pair is None else pair[0] for pair in pairs],
        "swapped_hits": [None if pair is None else pair[1] for pair in pairs],
        "baseline_center": [None if m is None else over_frames(metrics.centre_in, m) for m in masks],
        "baseline_random": [None if m is None else over_frames(metrics.random_in, m) for m in masks],
    }


@metric(
    "energy_pointing",
    higher_is_better=True,
    range=SHARE,
    description="share of the map's heat that lies on the object",
    source="Wang et al. 2020",
)
@metric(
    "inside",
    higher_is_better=None,
    range=SHARE,
    description="mean heat on the object, the map's maximum being 1",
    source=SELVARAJU,
)
@metric(
    "outside",
    higher_is_better=None,
    range=SHARE,
    description="mean heat outside the object, the map's maximum being 1",
    source=SELVARAJU,
)
def heat(batch: Batch) -> dict[str, Column]:
    """How much of the heat lies on the object: its share inside, and its mean inside over its mean outside.

    `inside_outside` is what the Grad-CAM paper measures with DenseCap's boxes.
    """
    both = batch.placed(metrics.inside_outside)
    return {
        "energy_pointing": batch.placed(metrics.energy_inside),
        "inside": [None if pair is None else pair[0] for pair in both],
        "outside": [None if pair is None else pair[1] for pair in both],
    }


@metric(
    "inside_outside",
    higher_is_better=True,
    range=(0.0, None),
    description="mean heat on the object over mean heat outside, of all targets together",
    source=SELVARAJU,
    level="means",
    of=("inside", "outside"),
)
def inside_outside(inside: Values, outside: Values) -> Values:
    """One mean over the other; infinite where there is no heat outside."""
    return inside / outside


@metric(
    "box_iou",
    higher_is_better=True,
    range=SHARE,
    description="IoU of the box around the largest segment above 15% of the maximum with the best box of the object",
    source=SELVARAJU,
)
@metric(
    "box_found",
    higher_is_better=True,
    range=SHARE,
    description="that IoU is 0.5 or more",
    source=SELVARAJU,
)
def box(batch: Batch) -> dict[str, Column]:
    """The box around the largest segment of the map at 15% of its maximum, against the boxes of the object.

    For a classifier the localization errors of the ILSVRC challenge follow, over images whose class has a box.
    """
    ious: list[float | None] = []
    for (e, k), made in zip(batch.rows, batch.heats, strict=True):
        placed = batch.truths[e][k].placed
        true = [] if placed is None else [metrics.pixel_box(b, (made.shape[0], made.shape[1])) for b in placed.boxes]
        own = metrics.box_of(made) if true else None
        ious.append(None if not true else 0.0 if own is None else max(metrics.box_iou(own, b) for b in true))
    return {"box_iou": ious, "box_found": [None if iou is None else iou >= 0.5 for iou in ious]}


@metric(
    "loc_0",
    higher_is_better=True,
    range=SHARE,
    description="Loc(delta) at delta 0: pixels of the map inside the box over those of the box and of the map outside",
    source=CHATTOPADHYAY,
)
@metric(
    "loc_0.25",
    higher_is_better=True,
    range=SHARE,
    description="Loc(delta) at delta 0.25: pixels of the map inside the box over those of the box and of the map outside",
    source=CHATTOPADHYAY,
)
@metric(
    "loc_0.5",
    higher_is_better=True,
    range=SHARE,
    description="Loc(delta) at delta 0.5: pixels of the map inside the box over those of the box and of the map outside",
    source=CHATTOPADHYAY,
)
def loc(batch: Batch) -> dict[str, Column]:
    """Loc(delta) of Grad-CAM++ at delta 0, 0.25 and 0.5."""
    return {f"loc_{delta:g}": batch.placed(partial(metrics.loc_delta, delta=delta)) for delta in (0.0, 0.25, 0.5)}


@metric(
    "top",
    higher_is_better=None,
    range=(0.0, None),
    description="largest value of the raw map, which the reject option of the pointing game compares",
    source=SELVARAJU,
)
def tops(batch: Batch) -> dict[str, Column]:
    """The maximum of each raw map, for the reject option of the pointing game.

    With `pointing` or `pointing_15px`, of a classifier, `pointing_with_reject` follows.
    """
    return {"top": [float(one.map.clamp(min=0).max()) for explanation in batch.explanations for one in explanation]}


@metric(
    "attention",
    higher_is_better=True,
    range=CORRELATION,
    description="rank correlation with human attention, at 14 x 14 cells",
    source="Das et al. 2016",
)
def attention(batch: Batch) -> dict[str, Column]:
    """Rank correlation with where people looked, at 14 x 14 cells; of data sets with human attention (VQA-HAT)."""
    told = [batch.truths[e][k].attention for e, k in batch.rows]
    return {
        "attention": [
            None if people is None else metrics.rank_correlation(made, people)
            for made, people in zip(batch.heats, told, strict=True)
        ]
    }


def _apart(one: Truth, other: Truth) -> bool:
    """Whether two targets are said to be at other places."""
    if one.kind == "absent" and other.placed is not None:  # a class that is not there, held against one that is
        return True
    if one.placed is None or other.placed is None:
        return False
    if one.objects and other.objects:
        return not set(one.objects) & set(other.objects)
    if one.placed.boxes or other.placed.boxes:
        return one.placed.boxes != other.placed.boxes
    return not np.array_equal(one.placed.pixels, other.placed.pixels)  # type: ignore[arg-type]
