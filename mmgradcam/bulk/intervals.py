"""Means over pictures with confidence intervals: the pictures are drawn anew, with all that hangs on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.bulk.measures import DERIVED

DRAWS = 1000


@dataclass(frozen=True)
class Figure:
    """A mean over rows, and where it lies with 95% confidence.

    Attributes:
        mean: over the rows that have a value.
        low: 2.5% of the means over pictures drawn anew lie below.
        high: 2.5% lie above.
        rows: how many have a value.
    """

    mean: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})"


def figures(
    pictures: Sequence[int], columns: Mapping[str, Sequence[Any]], draws: int = DRAWS, seed: int = 0
) -> dict[str, Figure]:
    """Means of columns and of what is derived of them, with bootstrap intervals over pictures.

    Source: Efron, "Bootstrap methods", 1979; percentile intervals. Pictures are drawn, since a picture's rows hang
    together.

    Args:
        pictures: of each row, the number of its picture.
        columns: of each row, a value, or None.
        draws: how many times the pictures are drawn.
        seed: of the drawing.
    """
    if not len(pictures):
        return {}
    names, place = np.unique(np.asarray(pictures), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / max(len(names), 1)), size=draws)
    means: dict[str, float] = {}
    again: dict[str, npt.NDArray[np.float64]] = {}
    rows: dict[str, int] = {}
    for name, column in columns.items():
        values = np.array([np.nan if v is None else float(v) for v in column])
        there = ~np.isnan(values)
        if not there.any():
            continue
        totals = np.bincount(place[there], values[there], len(names))
        counts = np.bincount(place[there], minlength=len(names))
        means[name], rows[name] = float(values[there].mean()), int(there.sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            again[name] = (drawn @ totals) / (drawn @ counts)
    for name, (parts, derive) in DERIVED.items():
        if not all(part in means for part in parts):
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            means[name] = float(derive(*(np.float64(means[part]) for part in parts)))
            again[name] = derive(*(again[part] for part in parts))
        rows[name] = min(rows[part] for part in parts)
    return {name: Figure(mean, *_interval(again[name]), rows[name]) for name, mean in means.items()}


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)
