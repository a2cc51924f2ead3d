"""Means over pictures with confidence intervals: the pictures are drawn anew, with all that hangs on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmgradcam.evaluation.batch import Values
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


class Sums:
    """Sums over each picture's rows, of which means and their bootstrap intervals are made; rows themselves are not kept.

    What is derived of two columns is so of the rows that have a value in both: a caption's only phrase has no swapped map, and
    would else count in the one mean and not in the other.

    Source: Efron, "Bootstrap methods", 1979; percentile intervals. Pictures are drawn, since a picture's rows hang
    together.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[int, dict[str, Values]]] = []
        """Of some pictures, how many they are, and by figure (pictures, 1 + parts) rows counted and sums of its parts."""

    def add(self, pictures: Sequence[int], columns: Mapping[str, Sequence[Any]]) -> None:
        """Rows of further pictures; all rows of one picture come together.

        Args:
            pictures: of each row, the number of its picture.
            columns: of each row, a value, or None.
        """
        if not len(pictures):
            return
        numbers, place = np.unique(np.asarray(pictures), return_inverse=True)
        values = {name: np.array([np.nan if v is None else float(v) for v in column]) for name, column in columns.items()}
        values = {name: column for name, column in values.items() if not np.isnan(column).all()}
        block: dict[str, Values] = {}
        for name, (parts, _) in _figures_of(values).items():
            if all(part in values for part in parts):
                there = ~np.isnan(np.stack([values[part] for part in parts])).any(0)
                counted = [np.ones(int(there.sum())), *(values[part][there] for part in parts)]
                block[name] = np.stack([np.bincount(place[there], one, len(numbers)) for one in counted], 1).astype(np.float64)
        self._blocks.append((len(numbers), block))

    def figures(self, draws: int = DRAWS, seed: int = 0) -> dict[str, Figure]:
        """Means of columns and of what is derived of them, with 95% intervals.

        Args:
            draws: how many times the pictures are drawn.
            seed: of the drawing.
        """
        known = _figures_of(dict.fromkeys(name for _, block in self._blocks for name in block))
        sums = {name: self._sums(name, len(parts)) for name, (parts, _) in known.items() if self._blocks}
        sums = {name: one for name, one in sums.items() if one[:, 0].any()}
        if not sums:
            return {}
        told = np.concatenate(list(sums.values()), 1)  # (pictures, S)
        pictures, drawing = len(told), np.random.default_rng(seed)
        # Not scipy.stats.bootstrap: it copies the pictures of each draw, and takes twice as long (20 figures, 2,000 pictures).
        size, even = max(1, CELLS // pictures), np.full(pictures, 1 / pictures)
        blocks = [drawing.multinomial(pictures, even, size=min(size, draws - at)) @ told for at in range(0, draws, size)]
        again, once = np.concatenate(blocks), told.sum(0, keepdims=True)
        found, at = {}, 0
        with np.errstate(invalid="ignore", divide="ignore"):
            for name, own in sums.items():
                end = at + own.shape[1]
                mean, drawn = (
                    known[name][1](*(some[:, k] / some[:, at] for k in range(at + 1, end))) for some in (once, again)
                )
                found[name] = Figure(float(mean[0]), *_interval(drawn), int(once[0, at]))
                at = end
        return found

    def _sums(self, name: str, parts: int) -> Values:
        """(pictures, 1 + parts) of all pictures."""
        return np.concatenate([block.get(name, np.zeros((count, 1 + parts))) for count, block in self._blocks])


def figures(pictures: Sequence[int], columns: Mapping[str, Sequence[Any]]) -> dict[str, Figure]:
    """Means of columns that are in memory, and of what is derived of them; see `Sums`."""
    sums = Sums()
    sums.add(pictures, columns)
    return sums.figures()


def _figures_of(names: Iterable[str]) -> dict[str, tuple[tuple[str, ...], Callable[..., Any]]]:
    """Of each figure that these columns may give, the columns that it is made of, and how."""
    derived = {one.name: (one.of, one.compute) for one in all_metrics() if one.level == "means"}
    plain = {name: ((name,), _itself) for name in names if name not in derived}
    return {**plain, **derived}


def _itself(values: Values) -> Values:
    return values


def _interval(values: Values) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)
