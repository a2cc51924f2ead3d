"""Means over pictures with confidence intervals: the pictures are drawn anew, with all that hangs on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmgradcam.metrics.definition import all_metrics

DRAWS = 1000
CELLS = 2**22
"""How many numbers of the drawing are held at once, however many pictures there are."""


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

    What is derived of two columns is so of the rows that have a value in both: a caption's only phrase has no swapped map, and
    would else count in the one mean and not in the other.

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
    values = {name: np.array([np.nan if v is None else float(v) for v in column]) for name, column in columns.items()}
    values = {name: column for name, column in values.items() if not np.isnan(column).all()}
    sums: list[npt.NDArray[Any]] = []
    of: dict[str, tuple[Callable[..., Any], list[int], int]] = {}
    plain: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {name: ((name,), _itself) for name in values}
    derived = {one.name: (one.of, one.compute) for one in all_metrics() if one.level == "means"}
    for name, (parts, derive) in {**plain, **derived}.items():
        if not all(part in values for part in parts):
            continue
        there = ~np.isnan(np.stack([values[part] for part in parts])).any(0)
        if there.any():
            of[name] = derive, list(range(len(sums), len(sums) + len(parts) + 1)), int(there.sum())
            sums += [np.bincount(place[there], values[part][there], len(names)) for part in parts]
            sums.append(np.bincount(place[there], minlength=len(names)).astype(np.float64))
    told = np.stack(sums, 1) if sums else np.zeros((len(names), 0))  # (pictures, S) of each picture's rows, values and counts
    drawing, size = np.random.default_rng(seed), max(1, CELLS // len(names))
    blocks = [
        drawing.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(size, draws - at)) @ told
        for at in range(0, draws, size)
    ]
    again, once = np.concatenate(blocks), told.sum(0, keepdims=True)
    found = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, (derive, at, rows) in of.items():
            mean, drawn = (derive(*(some[:, k] / some[:, at[-1]] for k in at[:-1])) for some in (once, again))
            found[name] = Figure(float(mean[0]), *_interval(drawn), rows)
    return found


def _itself(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)
