"""Metrics of whether the score depends on what the map shows: parts of the image are hidden, and the model scores it again."""

from __future__ import annotations

from mmgradcam import metrics
from mmgradcam.evaluation.batch import Batch, Column
from mmgradcam.metrics.definition import CORRELATION, SHARE, UNBOUNDED, metric
from mmgradcam.metrics.faithfulness import above

CHATTOPADHYAY, PETSIUK, SELVARAJU = "Chattopadhyay et al. 2018", "Petsiuk et al. 2018", "Selvaraju et al. 2017"


@metric(
    "average_drop",
    higher_is_better=False,
    range=SHARE,
    description="confidence lost, relative to that on the image, when the image is multiplied by the map",
    source=CHATTOPADHYAY,
)
@metric(
    "increase_in_confidence",
    higher_is_better=True,
    range=SHARE,
    description="the confidence increases when the image is multiplied by the map",
    source=CHATTOPADHYAY,
)
@metric(
    "win_rate",
    higher_is_better=True,
    range=SHARE,
    description="the image multiplied by this map keeps more confidence than by any other method's",
    source=CHATTOPADHYAY,
)
def drop(batch: Batch) -> dict[str, Column]:
    """Average drop, increase in confidence and win rate of Grad-CAM++: the image is multiplied by its map and scored again.

    Differences below 1e-4 of the confidence are rounding: they neither increase nor win. A win is over all other methods.
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
        "average_drop": [max(0.0, y - o) / y if y > 0 else None for y, o in pairs],
        "increase_in_confidence": above(part, whole).tolist(),
        "win_rate": win,
    }


@metric(
    "deletion_auc",
    higher_is_better=False,
    range=UNBOUNDED,
    description="mean score, in its own units, while the hottest pixels are removed",
    source=PETSIUK,
)
def deletion(batch: Batch) -> dict[str, Column]:
    """Deletion: the mean score while the hottest pixels become gray; lower is better.

    The paper measures probabilities; this is the task's own score (a word's log-probability or logit, an answer's logit).
    """
    return {"deletion_auc": metrics.deletion(batch.variants).tolist()}


@metric(
    "insertion_auc",
    higher_is_better=True,
    range=UNBOUNDED,
    description="mean score, in its own units, while the hottest pixels are inserted into a blurred image",
    source=PETSIUK,
)
def insertion(batch: Batch) -> dict[str, Column]:
    """Insertion: the mean score while the hottest pixels are inserted into a blurred image; higher is better."""
    return {"insertion_auc": metrics.insertion(batch.variants).tolist()}


@metric(
    "road",
    higher_is_better=True,
    range=UNBOUNDED,
    description="half of the score without the least relevant pixels less that without the most relevant, removed ones imputed",
    source="Rong et al. 2022",
)
def road(batch: Batch) -> dict[str, Column]:
    """ROAD, both orders: removed pixels become the weighted mean of their neighbors."""
    return {"road": metrics.road(batch.variants).tolist()}


@metric(
    "occlusion_correlation",
    higher_is_better=True,
    range=CORRELATION,
    description="rank correlation with the occlusion map of the same target",
    source=SELVARAJU,
)
def occlusion(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the occlusion map of the same target, at 14 x 14 cells."""
    return {"occlusion_correlation": metrics.occlusion_correlation(batch.variants).tolist()}


@metric(
    "confidence_at_10%",
    higher_is_better=True,
    range=(0.0, None),
    description="confidence with the hottest 10% of the image kept, over that on the image",
    source=CHATTOPADHYAY,
)
@metric(
    "confidence_at_25%",
    higher_is_better=True,
    range=(0.0, None),
    description="confidence with the hottest 25% of the image kept, over that on the image",
    source=CHATTOPADHYAY,
)
@metric(
    "confidence_at_50%",
    higher_is_better=True,
    range=(0.0, None),
    description="confidence with the hottest 50% of the image kept, over that on the image",
    source=CHATTOPADHYAY,
)
def extent(batch: Batch) -> dict[str, Column]:
    """Relative confidence with the hottest 10, 25 and 50% of the image kept; `mmgradcam.metrics.thresholding` gives whole
    curves.
    """
    kept = (0.9, 0.75, 0.5)
    _, relative = metrics.confidence_vs_area(batch.variants, kept)
    return {f"confidence_at_{1 - q:.0%}": relative[:, i].tolist() for i, q in enumerate(kept)}
