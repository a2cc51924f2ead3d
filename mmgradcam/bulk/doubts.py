"""More of what `mmgradcam evaluate --metrics` can measure: whether a map passes sanity checks, and what its target rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mmgradcam import metrics
from mmgradcam.bulk.measures import Batch, Column
from mmgradcam.explanation import Explanation


def randomized(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the map of a model of random weights: of the head alone, and of all of it (Adebayo et al. 2018)."""
    stages = [metrics.randomized(one) for one in batch.explanations]
    return {
        "randomized_head": [float(v) for some in stages for v in some[0].positive],
        "randomized_all": [float(v) for some in stages for v in some[-1].positive],
    }


def noise(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the maps of noisy copies of the picture, and the largest relative change (Yeh et al. 2019)."""
    found = [metrics.noise_sensitivity(one) for one in batch.explanations]
    return {
        "noise_rank": [float(v) for one in found for v in one.correlation],
        "noise_change": [float(v) for one in found for v in one.most],
    }


def labels(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the maps of the picture's other targets."""
    return _each(batch, metrics.swapped_labels, "label_shuffle")


def pictures(batch: Batch) -> dict[str, Column]:
    """Rank correlation with the maps of the same targets over another picture of the batch, which the model sees in one shape.

    None where there is no such picture.
    """
    made: list[float | None] = [None] * len(batch.rows)
    at = {row: n for n, row in enumerate(batch.rows)}
    count = len(batch.methods)
    for m in range(count):
        alike: dict[Any, dict[str, list[int]]] = {}  # a prompt made for a picture of one shape does not fit one of another
        for e in range(m, len(batch.explanations), count):
            shape = tuple(batch.explanations[e].again.view.pixels.shape)
            alike.setdefault(shape, {}).setdefault(batch.names[e], []).append(e)
        for of in alike.values():  # a picture may be asked about several times, and is no other picture than itself
            for turn in range(max(map(len, of.values())) if len(of) > 1 else 0):
                some = [own[min(turn, len(own) - 1)] for own in of.values()]
                for e, values in zip(some, metrics.swapped_pictures([batch.explanations[e] for e in some]), strict=True):
                    for k, value in enumerate(values):
                        made[at[e, k]] = float(value)
    return {"picture_shuffle": made}


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


def reliance(batch: Batch) -> dict[str, Column]:
    """What the picture adds: log p(with it) less log p(with a grey one), and with a blurred one."""
    grey, blur = (metrics.reliance(batch.explanations, without) for without in ("grey", "blur"))
    return {
        "reliance_grey": [float(v) for some in grey for v in some],
        "reliance_blur": [float(v) for some in blur for v in some],
    }


def made_up(batch: Batch) -> dict[str, Column]:
    """The probability that the target is made up, None of one that nobody claims; see `mmgradcam.metrics.made_up`."""
    found = [float(v) for some in metrics.made_up(batch.explanations) for v in some]
    return {"made_up": [None if np.isnan(v) else v for v in found]}


def _each(batch: Batch, measure: Callable[[Explanation], Any], name: str) -> dict[str, Column]:
    values = [float(v) for one in batch.explanations for v in measure(one)]
    return {name: [None if np.isnan(v) else v for v in values]}
