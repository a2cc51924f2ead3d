"""Does a map change when it should, and hold when it should? Sanity checks of explanations that `explain` made.

Each asks the model anew, about the very targets of the explanation and in the same way, and leaves the user's model alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.explaining import Again
from mmgradcam.explanation import Explanation
from mmgradcam.methods.resampled import noisy
from mmgradcam.metrics.likeness import Floats, spearman, ssim, to_grid
from mmgradcam.metrics.randomizing import copied, layers_of, reset

HOW = ("cascading", "independent")


@dataclass(frozen=True)
class Stage:
    """What became of the maps when some layers were made random.

    Attributes:
        layers: their names, the last to run first.
        reset: how many of them were made anew by their own `reset_parameters`; the others got normal numbers of the mean and
            deviation of their own weights.
        absolute: (K,) rank correlation of the maps' absolute values with those of the explanation.
        positive: (K,) the same of the maps' positive parts, which is what is drawn.
        ssim: (K,) structural similarity of the positive parts.
        scores: (K,) the targets' scores.
    """

    layers: tuple[str, ...]
    reset: int
    absolute: Floats
    positive: Floats
    ssim: Floats
    scores: Floats


def again_of(explanation: Explanation) -> Again:
    """The way an explanation was made.

    Raises:
        InputError: it was loaded from a file, so that there is no model to ask, or has no targets.
    """
    if not explanation.targets:
        raise InputError("a check needs a target, and this explanation has none")
    again: Again = explanation.again
    return again


def randomized(explanation: Explanation, seed: int = 0, how: str = "cascading", stages: int | None = 8) -> list[Stage]:
    """The model parameter randomization test: maps of what the model learned must change when that is thrown away.

    The layers of a copy of the model are made random, in the order from the last that runs down to the first, and the same
    targets are explained anew by the same method.

    Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 4.

    Args:
        explanation: made by `explain`; its model stays as it is.
        seed: of the random weights.
        how: "cascading", each stage beside all before it, so that the last is a model that learned nothing; or "independent",
            each stage alone.
        stages: at most so many, of layers that follow each other, about equally many in each; None for one per layer.

    Returns:
        A `Stage` for each, from the head down.

    Raises:
        InputError: no such way; or the model has no weights.
        ModelError: the model cannot be copied.
    """
    if how not in HOW:
        raise InputError(f'randomized: expected how="cascading" or "independent", got {how!r}')
    again = again_of(explanation)
    task, taps = copied(again.how.task, again.how.taps)
    layers = layers_of(task, again.view.pixels, explanation.targets)
    size = len(layers) if stages is None else max(1, min(stages, len(layers)))
    made = []
    for part in np.array_split(np.arange(len(layers)), size):
        some = [layers[i] for i in part]
        before = [{k: v.clone() for k, v in layer.own().items()} for layer in some]
        anew = sum(reset(layer.module, seed, int(i)) for i, layer in zip(part, some, strict=True))
        other = again.of([explanation.targets], [again.view.pixels], {"task": task, "taps": taps})[0]
        names = tuple(layer.name for layer in some)
        pairs = [(part_of(explanation.maps), part_of(other.maps)) for part_of in (torch.abs, torch.relu)]
        absolute, positive = (spearman(*pair) for pair in pairs)
        made.append(Stage(names, anew, absolute, positive, ssim(*pairs[1]), _floats(other.scores)))
        if how == "independent":
            for layer, kept in zip(some, before, strict=True):
                layer.put(kept)
    return made


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
    agains = [again_of(one) for one in explanations]
    if len(agains) < 2 or any(again.how.task is not agains[0].how.task for again in agains):
        raise InputError(f"swapped_pictures: expected explanations of 2 pictures or more by one model, got {len(agains)}")
    others = [again.view.pixels for again in [*agains[1:], agains[0]]]
    made = agains[0].of([one.targets for one in explanations], others)
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
    again = again_of(explanation)
    copies = noisy(again.view.pixels[None], samples, sigma, seed)
    made = again.of([explanation.targets] * samples, list(copies))
    own = explanation.maps.flatten(1)
    size = own.norm(dim=1)
    changes = torch.stack([(one.maps.flatten(1) - own).norm(dim=1) for one in made]).amax(0)
    most = changes / torch.where(size > 0, size, torch.ones_like(size))
    return Noise(_floats(most), _likeness(explanation, made), np.stack([_floats(one.scores) for one in made]))


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
    again = again_of(explanation)
    method: Callable[..., Any] = again.how.methods[0]
    if "seed" not in inspect.signature(method).parameters:
        raise InputError(f"seed_sensitivity: {explanation.about.method} draws nothing at random; give one that has a seed")
    pixels = [again.view.pixels]
    made = [again.of([explanation.targets], pixels, {"methods": (functools.partial(method, seed=seed),)})[0] for seed in seeds]
    return _likeness(explanation, made)


def methods_agree(explanations: Sequence[Explanation]) -> Floats:
    """How alike several methods' maps of the same targets are.

    Args:
        explanations: of the same targets, by M methods; maps of finer grids are averaged to the coarsest.

    Returns:
        (M, M, K) rank correlations of the positive maps.

    Raises:
        InputError: they are of different targets.
    """
    if not explanations or any(one.labels != explanations[0].labels for one in explanations):
        raise InputError("methods_agree: expected explanations of the same targets by several methods")
    grid = min((tuple(one.maps.shape[1:]) for one in explanations), key=np.prod)
    maps = [torch.relu(to_grid(one.maps, grid)) for one in explanations]
    return np.stack([np.stack([spearman(one, other) for other in maps]) for one in maps])


def _likeness(explanation: Explanation, others: Sequence[Explanation]) -> Floats:
    own = torch.relu(explanation.maps)
    return np.asarray(np.mean([spearman(own, torch.relu(other.maps)) for other in others], 0))


def _floats(values: Tensor) -> Floats:
    return np.asarray(values.detach().cpu().double().numpy())
