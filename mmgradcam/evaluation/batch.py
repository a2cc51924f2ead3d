"""What metrics are computed from: explanations of some pictures by several methods, and what is known of their targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.datasets.records import Sample
from mmgradcam.evaluation.queries import Truth
from mmgradcam.explanation import Explanation
from mmgradcam.metrics import Variants

Heat = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]
"""Means of a column, one for each time the pictures are drawn."""
Column = Sequence[float | bool | str | None]
Measure = Callable[["Batch"], dict[str, Column]]
"""Columns by name, each with a value, or None where there is none, for each of the batch's R rows."""


@dataclass(frozen=True)
class Batch:
    """Explanations of some pictures by several methods.

    Attributes:
        explanations: picture by picture, and of each method by method.
        truths: of each explanation's targets.
        methods: the names, in the order of each picture's explanations.
        photos: of each explanation, its picture and what is known of it.
        classes: the number of each of a classifier's labels, from 1 on.
        out: where files go, if any.
    """

    explanations: list[Explanation]
    truths: list[list[Truth]]
    methods: list[str]
    photos: Sequence[Sample]
    classes: Mapping[str, int] = field(default_factory=dict)
    out: Path | None = None

    @property
    def names(self) -> list[str]:
        """Of each explanation, its picture's."""
        return [photo.name for photo in self.photos]

    @cached_property
    def variants(self) -> Variants:
        """Of all R rows: explanation by explanation, and of each target by target."""
        return Variants(self.explanations)

    @cached_property
    def heats(self) -> list[Heat]:
        """Of each row, its heat on the picture's pixels, (H, W), or (T, H, W) on a clip's."""
        return [one.heat() for explanation in self.explanations for one in explanation]

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Of each row, which explanation and which of its targets."""
        return [(e, k) for e, one in enumerate(self.explanations) for k in range(len(one))]

    @cached_property
    def masks(self) -> list[npt.NDArray[np.bool_] | None]:
        """Of each row, where its target is; None where nobody said."""
        return [self.truths[e][k].mask(heat.shape) for (e, k), heat in zip(self.rows, self.heats, strict=True)]

    def placed(self, measure: Callable[[Heat, Any], Any]) -> list[Any]:
        """A measure of heat and mask, of each row that has a mask; of a clip, its mean over the frames."""
        pairs = zip(self.heats, self.masks, strict=True)
        return [None if mask is None else over_frames(measure, heat, mask) for heat, mask in pairs]


def over_frames(measure: Callable[..., Any], *arrays: npt.NDArray[Any]) -> Any:
    """A measure of arrays (H, W); of arrays (T, H, W), its mean over the frames, number by number."""
    if arrays[0].ndim == 2:
        return measure(*arrays)
    found = [measure(*parts) for parts in zip(*arrays, strict=True)]
    return np.mean(np.asarray(found, np.float64), 0)
