"""What `mmgradcam evaluate --metrics` can measure: each a function of a batch that gives a value per target and method."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmgradcam import draw, metrics
from mmgradcam.bulk.asked import Truth
from mmgradcam.errors import InputError
from mmgradcam.explanation import Explanation
from mmgradcam.metrics import Variants
from mmgradcam.metrics.faithfulness import above
from mmgradcam.metrics.localization import ZHANG_TOLERANCE
from mmgradcam.naming import distinct_name
from mmgradcam.regions import fill_holes

Heat = npt.NDArray[np.float32]
Column = Sequence[float | bool | None]
Measure = Callable[["Batch"], dict[str, Column]]
"""Columns by name, each with a value, or None where there is none, for each of the batch's R rows."""

DERIVED: dict[str, tuple[tuple[str, str], Callable[[Any, Any], Any]]] = {
    "specificity": (("peak", "swapped"), operator.sub),
    "specificity_15px": (("peak_15px", "swapped_15px"), operator.sub),
    "inside_outside": (("inside", "outside"), operator.truediv),
    "seed_iou": (("seed_shared", "seed_either"), operator.truediv),
}
"""Figures that are made of the means of two columns, not of each row's values."""


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


@dataclass(frozen=True)
class Batch:
    """Explanations of some pictures by several methods.

    Attributes:
        explanations: picture by picture, and of each method by method.
        truths: of each explanation's targets.
        methods: the names, in the order of each picture's explanations.
        names: of each explanation, its picture's.
        classes: the number of each of a classifier's labels, from 1 on.
        out: where files go, if any.
    """

    explanations: list[Explanation]
    truths: list[list[Truth]]
    methods: list[str]
    names: Sequence[str]
    classes: Mapping[str, int] = field(default_factory=dict)
    out: Path | None = None

    @cached_property
    def variants(self) -> Variants:
        """Of all R rows: explanation by explanation, and of each target by target."""
        return Variants(self.explanations)

    @cached_property
    def heats(self) -> list[Heat]:
        """Of each row, its heat on the picture's pixels."""
        return [one.heat() for explanation in self.explanations for one in explanation]

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Of each row, which explanation and which of its targets."""
        return [(e, k) for e, one in enumerate(self.explanations) for k in range(len(one))]

    @cached_property
    def masks(self) -> list[npt.NDArray[np.bool_] | None]:
        """Of each row, where its target is; None where nobody said."""
        return [self.truths[e][k].mask(heat.shape) for (e, k), heat in zip(self.rows, self.heats, strict=True)]

    def placed(self, measure: Callable[[Heat, Any], float]) -> Column:
        """A measure of heat and mask, of each row that has a mask."""
        pairs = zip(self.heats, self.masks, strict=True)
        return [None if mask is None else measure(heat, mask) for heat, mask in pairs]


def pointing(batch: Batch) -> dict[str, Column]:
    """Pointing game without tolerance: the peak lies on the thing; with centre, random point and swapped map."""
    filled = [None if mask is None else fill_holes(mask) for mask in batch.masks]
    return {**_pointed(batch, filled), "strict": batch.placed(metrics.peak_in)}


def pointing_15px(batch: Batch) -> dict[str, Column]:
    """Pointing game of Zhang et al. 2016: a peak within 15 pixels of the thing hits it; its baselines likewise."""
    wide = [None if mask is None else metrics.widened(mask, ZHANG_TOLERANCE) for mask in batch.masks]
    return {f"{name}_15px": column for name, column in _pointed(batch, wide).items()}


def _pointed(batch: Batch, masks: Sequence[npt.NDArray[np.bool_] | None]) -> dict[str, Column]:
    """What hits the masks: the peak, another target's, the centre, and a random point."""
    at = {row: n for n, row in enumerate(batch.rows)}
    swapped: list[float | None] = []
    for (e, k), mask in zip(batch.rows, masks, strict=True):
        own = batch.truths[e][k]
        others = [j for j, t in enumerate(batch.truths[e]) if j != k and t.text == own.text and _apart(t, own)]
        hits = [metrics.peak_in(batch.heats[at[e, j]], mask) for j in others] if mask is not None else []
        swapped.append(float(np.mean(hits)) if hits else None)
    return {
        "peak": [None if m is None else metrics.peak_in(h, m) for h, m in zip(batch.heats, masks, strict=True)],
        "swapped": swapped,
        "centre": [None if m is None else metrics.centre_in(m) for m in masks],
        "random": [None if m is None else metrics.random_in(m) for m in masks],
    }


def heat(batch: Batch) -> dict[str, Column]:
    """How much of the heat lies on the thing: the share inside, and its mean inside over its mean outside."""
    both = [None if m is None else metrics.inside_outside(h, m) for h, m in zip(batch.heats, batch.masks, strict=True)]
    return {
        "energy": batch.placed(metrics.energy_inside),
        "inside": [None if pair is None else pair[0] for pair in both],
        "outside": [None if pair is None else pair[1] for pair in both],
    }


def box(batch: Batch) -> dict[str, Column]:
    """The box at 15% of the maximum: its IoU with the best box of the thing, and whether that is a half at least."""
    ious: list[float | None] = []
    for (e, k), made in zip(batch.rows, batch.heats, strict=True):
        placed = batch.truths[e][k].placed
        own = metrics.box_of(made)
        true = [] if placed is None else [metrics.pixel_box(b, (made.shape[0], made.shape[1])) for b in placed.boxes]
        ious.append(None if not true else 0.0 if own is None else max(metrics.box_iou(own, b) for b in true))
    return {"box_iou": ious, "box_found": [None if iou is None else iou >= 0.5 for iou in ious]}


def loc(batch: Batch) -> dict[str, Column]:
    """Loc of Grad-CAM++ at delta 0, .25 and .5."""
    return {f"loc_{delta:g}": batch.placed(partial(metrics.loc_delta, delta=delta)) for delta in (0.0, 0.25, 0.5)}


def iou(batch: Batch) -> dict[str, Column]:
    """IoU of the map, cut by Otsu's rule, with the thing."""
    return {"obj_iou": batch.placed(metrics.obj_iou)}


def word_iou(batch: Batch) -> dict[str, Column]:
    """`obj_iou` of a caption's nouns, and `func_iou` of its function words at the nouns' threshold; of both, `f1_iou`.

    The formulas are Token Activation Map's, the protocol is not: captions are given, not the model's own; nouns are those that
    people placed, not all that COCO's classes name; a word's map is that of all its tokens, not of the best. Its figures are
    another thing than the paper's.

    Nouns are the last words of phrases with a place. A caption's maps are on one scale: over the largest value of them all on
    the picture. Captioners that are asked for phrases explain the single words anew, which takes one more encode a method.
    """
    obj: list[float | None] = [None] * len(batch.rows)
    func: list[float | None] = [None] * len(batch.rows)
    first = 0
    for e, explanation in enumerate(batch.explanations):
        masks: list[Any] = batch.masks[first : first + len(explanation)]
        query = explanation.about.query
        texts: dict[str, list[int]] = {}
        for k, truth in enumerate(batch.truths[e]):
            if truth.placed is not None and masks[k] is not None:
                texts.setdefault(truth.text, []).append(k)
        for nouns in texts.values():
            if "phrases" in query:
                words, heads = list(query["phrases"][nouns[0]][0]), [query["phrases"][k][2] for k in nouns]
                empty = [i for i, word in enumerate(words) if word in FUNCTION_WORDS and i not in heads]
                asked = explanation.task.targets(torch.empty(1), phrases=[(words, i, i) for i in [*heads, *empty]])
                again = explanation.again
                maps = again.of([asked], [again.view.pixels])[0].maps if empty else torch.empty(0)
            else:
                empty = [k for k, label in enumerate(explanation.labels) if label.lower() in FUNCTION_WORDS and k not in nouns]
                maps = explanation.maps[[*nouns, *empty]]
            if not empty:
                continue
            picture = explanation.picture
            raw = draw.upsample(maps.cpu(), explanation.box, (picture.height, picture.width))
            heats = [part.numpy() for part in raw / raw.max().clamp(min=torch.finfo(raw.dtype).tiny)]
            for k, own in zip(nouns, heats, strict=False):
                obj[first + k] = metrics.obj_iou(own, masks[k])
            level = float(np.mean([metrics.otsu(own) for own in heats[: len(nouns)]]))
            func[first + nouns[0]] = metrics.func_iou(heats[len(nouns) :], level)
        first += len(explanation)
    return {"noun_iou": obj, "function_word_iou": func}


def tops(batch: Batch) -> dict[str, Column]:
    """The largest value of each raw map, by which the pointing game's reject option goes; see `mmgradcam.bulk.protocols`."""
    return {"top": [float(one.map.clamp(min=0).max()) for explanation in batch.explanations for one in explanation]}


def seeds(batch: Batch) -> dict[str, Column]:
    """Segmentation seeds of a classifier's true classes: pixels that seed and thing share, and pixels of either.

    Every true class is drawn, also where nobody said where it is; there nothing is counted. With `--out`, the seeds are written
    as PNG masks with VOC's colours into `seeds/METHOD/PICTURE.png`.
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
    return {"seed_shared": shared, "seed_either": either}


def attention(batch: Batch) -> dict[str, Column]:
    """Rank correlation with where people looked, of 14 x 14 cells."""
    told = [batch.truths[e][k].attention for e, k in batch.rows]
    return {
        "attention": [
            None if people is None else metrics.rank_correlation(made, people)
            for made, people in zip(batch.heats, told, strict=True)
        ]
    }


def drop(batch: Batch) -> dict[str, Column]:
    """Average drop, increase and win of Grad-CAM++'s paper.

    An increase is over the whole picture, and a win over every other method, by more than rounding.
    """
    whole, part = (some.tolist() for some in metrics.shown(batch.variants))
    others: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for n, (e, k) in enumerate(batch.rows):
        others.setdefault((e // len(batch.methods), k), []).append((n, part[n]))
    win: list[bool | None] = [None] * len(part)
    for same in others.values():
        for n, own in same:
            rivals = [other for m, other in same if m != n]
            win[n] = bool(above(own, rivals).all()) if rivals else None
    pairs = list(zip(whole, part, strict=True))
    return {
        "drop": [100 * max(0.0, y - o) / y if y > 0 else None for y, o in pairs],
        "increase": above(part, whole).tolist(),
        "win": win,
    }


def deletion(batch: Batch) -> dict[str, Column]:
    """Mean score while the hottest pixels are taken away."""
    return {"deletion": metrics.deletion(batch.variants).tolist()}


def insertion(batch: Batch) -> dict[str, Column]:
    """Mean score while the hottest pixels are put into a blurred picture."""
    return {"insertion": metrics.insertion(batch.variants).tolist()}


def road(batch: Batch) -> dict[str, Column]:
    """ROAD, both orders."""
    return {"road": metrics.road(batch.variants).tolist()}


def occlusion(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the occlusion map."""
    return {"occlusion": metrics.occlusion_correlation(batch.variants).tolist()}


def extent(batch: Batch) -> dict[str, Column]:
    """Relative confidence with the hottest tenth, quarter, half of the picture kept; see `mmgradcam.metrics.extents`."""
    kept = (0.9, 0.75, 0.5)
    _, relative = metrics.extents(batch.variants, kept)
    return {f"confidence_at_{1 - q:.0%}": relative[:, i].tolist() for i, q in enumerate(kept)}


def _apart(one: Truth, other: Truth) -> bool:
    """Whether two targets are said to be at other places."""
    if one.kind == "absent" and other.placed is not None:  # a class that is not there, held against one that is
        return True
    if one.placed is None or other.placed is None:
        return False
    if one.placed.boxes or other.placed.boxes:
        return one.placed.boxes != other.placed.boxes
    return not np.array_equal(one.placed.pixels, other.placed.pixels)  # type: ignore[arg-type]
