"""Do the maps stay when the picture gets worse?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmgradcam.explaining.explain import explain
from mmgradcam.images.pictures import open_picture
from mmgradcam.metrics.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupted
from mmgradcam.metrics.robustness import compared
from mmgradcam.probe import AskingMethod
from mmgradcam.task import Method, Target, Task


@dataclass(frozen=True)
class Swept:
    """What one corruption does to one target: `corruption_sweep`.

    Attributes:
        kind: name of the corruption.
        severity: 1 to 5.
        label: of the target, the same on the clean picture and on the corrupted one.
        correlation: Spearman's rank correlation of the two maps.
        overlap: intersection over union of their boxes.
        clean: the target's score on the clean picture, in the task's unit.
        score: and on the corrupted one.
    """

    kind: str
    severity: int
    label: str
    correlation: float
    overlap: float
    clean: float
    score: float

    @property
    def change(self) -> float:
        """By how much the score grew."""
        return self.score - self.clean


def corruption_sweep(
    task: Task,
    picture: Any,
    *,
    kinds: Sequence[Corruption] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    method: Method | AskingMethod | None = None,
    target_layers: Sequence[Any] | None = None,
    seed: int = 0,
    **query: Any,
) -> list[Swept]:
    """How the maps and scores of a picture's targets change as the picture gets worse.

    Args:
        task: any task of pictures.
        picture: as for `explain`.
        kinds: corruptions.
        severities: of each, 1 to 5.
        method: as for `explain`.
        target_layers: as for `explain`.
        seed: of the noise.
        **query: what to explain; what the model says of the clean picture is explained on the others, too.

    Returns:
        One row per corruption, severity and target, in that order.
    """
    image = open_picture(picture)
    clean = explain(task, image, method=method, target_layers=target_layers, **query)
    steps = [(kind, severity) for kind in kinds for severity in severities]
    worse = [corrupted(image, kind, severity, seed) for kind, severity in steps]
    made = explain(asking(task, clean.targets), worse, method=method, target_layers=target_layers)
    rows = []
    for (kind, severity), one in zip(steps, made, strict=True):
        found = zip(clean.labels, *compared(clean, one), clean.scores.tolist(), one.scores.tolist(), strict=True)
        rows += [Swept(getattr(kind, "__name__", "corruption"), severity, *row) for row in found]
    return rows


def asking(task: Task, targets: Sequence[Target]) -> Task:
    """The same model, asked for the same targets whatever the picture shows.

    Args:
        task: whose model; it is not changed.
        targets: what `explain` will explain.
    """
    asked = copy.copy(task)
    asked.targets_of_each = lambda features, queries: [targets for _ in queries]  # type: ignore[method-assign]
    return asked
