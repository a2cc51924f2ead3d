"""What a task gives, held against what `Task` promises; a mistake is refused in one line that names the method."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmgradcam.errors import ModelError
from mmgradcam.task import Target, Task


def check_features(task: Task, features: object, images: int) -> None:
    """Refuses features of so many images that are not (B, C, *grid) numbers.

    Raises:
        ModelError: they are not.
    """
    if not isinstance(features, Tensor) or features.dim() < 2 or features.shape[0] != images:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ModelError(f"{task.name}.encode: expected (B, C, *grid) features of {images} images, got {got}")
    if not features.is_floating_point():
        raise ModelError(f"{task.name}.encode: expected floating-point features, got {features.dtype}")


def groups_of(task: Task, features: Tensor, targets: Sequence[Sequence[Target]]) -> Sequence[Tensor] | None:
    """`Task.scores` of images and their targets, checked; None where the task has none.

    Raises:
        ModelError: it gives something else.
    """
    groups = task.scores(features, targets)
    if groups is not None:
        most, images = max(map(len, targets)), len(targets)
        got = [tuple(group.shape) if isinstance(group, Tensor) else type(group).__name__ for group in groups]
        if any(not isinstance(s, tuple) or len(s) != 2 or s[1] != images for s in got) or sum(s[0] for s in got) != most:
            raise ModelError(f"{task.name}.scores: expected tensors (t, {images}) whose t add up to {most} targets, got {got}")
    return groups


def check_scores(task: Task, scores: object, asked: Sequence[Target]) -> None:
    """Refuses scores that are not one for each target.

    Raises:
        ModelError: they are not.
    """
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (len(asked),):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ModelError(f"{task.name}.score: expected ({len(asked)},) scores, one per target, got {got}")


def check_finite(task: Task, scores: Tensor, asked: Sequence[Target]) -> None:
    """Refuses scores (K,) that are not numbers; apart from `gradients_of`, since reading them waits for the device.

    Raises:
        ModelError: a score is infinite or not a number.
    """
    wrong = (~torch.isfinite(scores)).nonzero().flatten().tolist()
    if wrong:
        labels = ", ".join(repr(asked[i].label) for i in wrong[:5])
        raise ModelError(f"{task.name}: the score of {labels} is {scores[wrong[0]].item()}; a map of it would mean nothing")
