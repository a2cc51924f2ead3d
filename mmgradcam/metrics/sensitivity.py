"""Does a map change when it should, and hold when it should? Labels and pictures swapped, noise, seeds, other methods.

Each asks the model anew, about the very targets of the explanation and in the same way, and leaves the user's model alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from mmgradcam.errors import InputError
from mmgradcam.explanation import Explanation
from mmgradcam.methods.perturbation import noisy
from mmgradcam.metrics.randomization import explainer_of
from mmgradcam.metrics.similarity import Floats, floats, spearman, to_grid


def swapped_labels(explanation: Explanation) -> Floats:
    """How alike a target's map is to those of the other targets of its picture: a map of the picture alone is like them all.

    Args:
        explanation: of K targets.

    Returns:
        (K,) the mean rank correlation of the positive maps with those of targets of another label; nan where there is none.
    """
    maps, labels = torch.relu(explanation.maps), explanation.labels
    made = []
    for i, label in enumerate(labels):
        others = [k for k, other in enumerate(labels) if other != label]
        own = maps[i].expand(len(others), *maps.shape[1:])
        made.append(float(spearman(own, maps[others]).mean()) if others else float("nan"))
    return np.array(made)


def swapped_pictures(explanations: Sequence[Explanation]) -> list[Floats]:
    """How alike a map is to the map of the same target over another picture: a map of the target alone is like it.

    Args:
        explanations: of two pictures or more by one model; each one's targets are explained over the next one's picture, and
            the last one's over the first.

    Returns:
        For each explanation, (K,) rank correlations of the positive maps.

    Raises:
        InputError: fewer than two, or by several models.
    """
    agains = [explainer_of(one) for one in explanations]
    if len(agains) < 2 or len({id(again.how.task) for again in agains}) > 1:
        raise InputError(f"swapped_pictures: expected explanations of 2 pictures or more by one model, got {len(agains)}")
    first, *rest = agains
    others = [again.view.pixels for again in [*rest, first]]
    made = first.of([one.targets for one in explanations], others)
    return [
        spearman(torch.relu(one.maps), torch.relu(to_grid(other.maps, tuple(one.maps.shape[1:]))))
        for one, other in zip(explanations, made, strict=True)
    ]


@dataclass(frozen=True)
class Noise:
    """What noise does to the maps.

    Attributes:
        most: (K,) the largest change over the noisy copies: the Euclidean norm of the difference over that of the map.
        correlation: (K,) mean rank correlation of the noisy copies' positive maps with the explanation's.
        scores: (samples, K) the targets' scores.
    """

    most: Floats
    correlation: Floats
    scores: Floats


def noise_sensitivity(explanation: Explanation, sigma: float = 0.05, samples: int = 8, seed: int = 0) -> Noise:
    """How much maps change under noise that nobody would see.

    The max-sensitivity of Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019, definition 3, by
    sampling; over the norm of the map, so that maps of any scale compare, and with Gaussian noise where the paper has a ball.

    Args:
        explanation: made by `explain`.
        sigma: standard deviation of the noise, as a share of the picture's range.
        samples: noisy copies, 2 or more; each is encoded once for all targets.
        seed: of the noise.
    """
    again = explainer_of(explanation)
    copies = noisy(again.view.pixels[None], samples, sigma, seed)
    made = again.of([explanation.targets] * samples, list(copies))
    own = explanation.maps.flatten(1)
    size = own.norm(dim=1)
    changes = torch.stack([(one.maps.flatten(1) - own).norm(dim=1) for one in made]).amax(0)
    most = changes / torch.where(size > 0, size, torch.ones_like(size))
    return Noise(floats(most), _likeness(explanation, made), np.stack([floats(one.scores) for one in made]))


def seed_sensitivity(explanation: Explanation, seeds: Sequence[int] = (1, 2, 3)) -> Floats:
    """How alike the maps of a method that draws at random (rise, smooth) are under other seeds.

    Args:
        explanation: made by `explain` with such a method.
        seeds: other seeds than its own.

    Returns:
        (K,) mean rank correlation of the positive maps.

    Raises:
        InputError: the method has no seed.
    """
    again = explainer_of(explanation)
    (method,) = cast(tuple[Callable[..., Any]], again.how.methods)
    if "seed" not in inspect.signature(method).parameters:
        raise InputError(f"seed_sensitivity: {explanation.metadata.method} draws nothing at random; give one that has a seed")
    pixels = [again.view.pixels]
    made = [again.of([explanation.targets], pixels, {"methods": (functools.partial(method, seed=seed),)}) for seed in seeds]
    return _likeness(explanation, [one for (one,) in made])


def methods_agree(explanations: Sequence[Explanation]) -> Floats:
    """How alike several methods' maps of the same targets are.

    Args:
        explanations: of the same targets, by M methods; maps of finer grids are averaged to the coarsest.

    Returns:
        (M, M, K) rank correlations of the positive maps.

    Raises:
        InputError: they are of different targets.
    """
    if len({tuple(one.labels) for one in explanations}) != 1:
        raise InputError("methods_agree: expected explanations of the same targets by several methods")
    grid = min((tuple(one.maps.shape[1:]) for one in explanations), key=np.prod)
    maps = [torch.relu(to_grid(one.maps, grid)) for one in explanations]
    return np.stack([np.stack([spearman(one, other) for other in maps]) for one in maps])


def _likeness(explanation: Explanation, others: Sequence[Explanation]) -> Floats:
    own = torch.relu(explanation.maps)
    return np.asarray(np.mean([spearman(own, torch.relu(other.maps)) for other in others], 0))
