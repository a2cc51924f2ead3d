"""More of what `mmgradcam evaluate --metrics` can measure: whether a map passes sanity checks, and what its target rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mmgradcam import metrics
from mmgradcam.evaluation.batch import Batch, Column
from mmgradcam.explanation import Explanation
from mmgradcam.metrics.definition import CORRELATION, SHARE, UNBOUNDED, metric


@metric(
    "randomized_head",
    higher_is_better=False,
    range=CORRELATION,
    description="rank correlation with the map of the model with a randomized head",
    source="Adebayo et al. 2018",
)
@metric(
    "randomized_all",
    higher_is_better=False,
    range=CORRELATION,
    description="rank correlation with the map of the fully randomized model",
    source="Adebayo et al. 2018",
)
def parameter_randomization(batch: Batch) -> dict[str, Column]:
    """Parameter randomization: rank correlation with the maps of a model with random weights, in the head or everywhere."""
    stages = [metrics.parameter_randomization(one) for one in batch.explanations]
    return {
        "randomized_head": [float(v) for some in stages for v in some[0].positive],
        "randomized_all": [float(v) for some in stages for v in some[-1].positive],
    }


@metric(
    "noise_rank",
    higher_is_better=True,
    range=CORRELATION,
    description="mean rank correlation with the maps of noisy copies of the image",
    source="Yeh et al. 2019",
)
@metric(
    "noise_change",
    higher_is_better=False,
    range=(0.0, None),
    description="largest relative change of the map under noise (max-sensitivity)",
    source="Yeh et al. 2019",
)
def noise(batch: Batch) -> dict[str, Column]:
    """Sensitivity to noise: rank correlation with the maps of noisy copies of the image, and the largest relative change."""
    found = [metrics.noise_sensitivity(one) for one in batch.explanations]
    return {
        "noise_rank": [float(v) for one in found for v in one.correlation],
        "noise_change": [float(v) for one in found for v in one.most],
    }


@metric(
    "label_shuffle",
    higher_is_better=False,
    range=CORRELATION,
    description="rank correlation with the maps of the image's other targets",
    source="mmgradcam",
)
def labels(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the maps of the image's other targets."""
    return _each(batch, metrics.swapped_labels, "label_shuffle")


@metric(
    "picture_shuffle",
    higher_is_better=False,
    range=CORRELATION,
    description="rank correlation with the map of the same target on another image",
    source="mmgradcam",
)
def pictures(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the maps of the same targets on another image of the batch that has the same shape for the model.

    None where there is no such image.
    """
    made: list[float | None] = [None] * len(batch.rows)
    at = {row: n for n, row in enumerate(batch.rows)}
    count = len(batch.methods)
    for m in range(count):
        alike: dict[Any, dict[str, list[int]]] = {}  # a prompt made for a picture of one shape does not fit one of another
        for e in range(m, len(batch.explanations), count):
            shape = tuple(batch.explanations[e].explainer.view.pixels.shape)
            alike.setdefault(shape, {}).setdefault(batch.names[e], []).append(e)
        for of in alike.values():  # a picture may be asked about several times, and is no other picture than itself
            for turn in range(max(map(len, of.values())) if len(of) > 1 else 0):
                some = [own[min(turn, len(own) - 1)] for own in of.values()]
                for e, values in zip(some, metrics.swapped_pictures([batch.explanations[e] for e in some]), strict=True):
                    for k, value in enumerate(values):
                        made[at[e, k]] = float(value)
    return {"picture_shuffle": made}


@metric(
    "methods_agree",
    higher_is_better=None,
    range=CORRELATION,
    description="mean rank correlation with the other methods' maps",
    source="mmgradcam",
)
def agree(batch: Batch) -> dict[str, Column]:
    """Mean rank correlation with the other methods' maps of the same target."""
    made: list[float | None] = []
    count = len(batch.methods)
    for start in range(0, len(batch.explanations), count):
        some = batch.explanations[start : start + count]
        between = metrics.methods_agree(some) if count > 1 else None
        for m, one in enumerate(some):
            values = [] if between is None else np.delete(between[m], m, 0).mean(0).tolist()
            made += values or [None] * len(one)
    return {"methods_agree": made}


@metric(
    "grounding_gray",
    higher_is_better=None,
    range=UNBOUNDED,
    description="log-probability of the target less that on a gray image (natural logarithm)",
    source="mmgradcam",
)
@metric(
    "grounding_blur",
    higher_is_better=None,
    range=UNBOUNDED,
    description="log-probability of the target less that on a blurred image (natural logarithm)",
    source="mmgradcam",
)
def grounding(batch: Batch) -> dict[str, Column]:
    """How much more likely the image makes the target than a gray or a blurred one (docs/grounding.md)."""
    grey, blur = (metrics.grounding(batch.explanations, without) for without in ("grey", "blur"))
    return {
        "grounding_gray": [float(v) for some in grey for v in some],
        "grounding_blur": [float(v) for some in blur for v in some],
    }


@metric(
    "hallucination_probability",
    higher_is_better=None,
    range=SHARE,
    description="probability that the target is not in the image",
    source="mmgradcam",
)
def hallucination_probability(batch: Batch) -> dict[str, Column]:
    """The probability that the target is made up (docs/grounding.md); None where the model does not claim it."""
    found = [float(v) for some in metrics.hallucination_probability(batch.explanations) for v in some]
    return {"hallucination_probability": [None if np.isnan(v) else v for v in found]}


def _each(batch: Batch, measure: Callable[[Explanation], Any], name: str) -> dict[str, Column]:
    values = [float(v) for one in batch.explanations for v in measure(one)]
    return {name: [None if np.isnan(v) else v for v in values]}
