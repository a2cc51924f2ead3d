"""What a metric is: one function, and the record that says how its values are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from mmgradcam.errors import InputError

Range = tuple[float | None, float | None]
Level = Literal["target", "means", "rows"]
Function = TypeVar("Function", bound=Callable[..., Any])

SHARE: Range = (0.0, 1.0)
CORRELATION: Range = (-1.0, 1.0)
UNBOUNDED: Range = (None, None)


@dataclass(frozen=True)
class Metric:
    """A metric: the function that computes it and how its values are read.

    Attributes:
        name: the key of its values in rows, tables and JSON.
        compute: what it takes and returns depends on `level`.
        higher_is_better: None for baselines, and for values that are neither good nor bad.
        range: the smallest and the largest possible value; None where there is no bound.
        description: what is measured, in one phrase.
        source: author and year of the definition; "mmgradcam" where it is the project's own.
        level: "target": `compute(batch)` returns columns by name, with one value per target and method. "means":
            `compute(*means)` takes the means of the metrics `of`, over the rows that have a value of each. "rows":
            `compute(rows)` takes all rows of one method and returns one number, or None where it does not apply.
        of: the metrics that it is computed from, unless its level is "target".
        baselines: metrics that say what a map that knows nothing scores.
    """

    name: str
    compute: Callable[..., Any]
    higher_is_better: bool | None
    range: Range
    description: str
    source: str
    level: Level = "target"
    of: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()

    @property
    def better(self) -> str:
        """Its direction in a word: "higher", "lower" or nothing."""
        return {True: "higher", False: "lower", None: ""}[self.higher_is_better]

    @property
    def interval(self) -> str:
        """Its range in words, as "0 to 1" or "0 or more"."""
        low, high = self.range
        if low is None or high is None:
            return "any number" if low is None else f"{low:g} or more"
        return f"{low:g} to {high:g}"

    @property
    def chosen_by(self) -> str:
        """The function that computes it for each target; of others, nothing."""
        return self.compute.__name__ if self.level == "target" else ""

    def described(self) -> dict[str, Any]:
        """Direction, range, description and source, as JSON holds them."""
        return {
            "higher_is_better": self.higher_is_better,
            "range": list(self.range),
            "description": self.description,
            "source": self.source,
        }


_METRICS: dict[Callable[..., Any], list[Metric]] = {}
"""The metrics of each decorated function, in the order in which they are written."""


def metric(
    name: str,
    *,
    higher_is_better: bool | None,
    range: Range,
    description: str,
    source: str,
    level: Level = "target",
    of: tuple[str, ...] = (),
    baselines: tuple[str, ...] = (),
) -> Callable[[Function], Function]:
    """Decorates the function that computes a metric; the function itself stays as it is.

    A function that computes several columns at once is decorated once for each. The arguments are the attributes of `Metric`.

    Raises:
        InputError: another function computes a metric of that name.

    >>> @metric("above_half", higher_is_better=None, range=SHARE, description="share of the map above 0.5", source="you")
    ... def above_half(batch):
    ...     return {"above_half": [float((heat > 0.5).mean()) for heat in batch.heats]}
    >>> metrics_of(above_half)[0].range
    (0.0, 1.0)
    """

    def decorated(compute: Function) -> Function:
        known = metric_of(name)
        if known is not None and known.compute is not compute:
            if _place(known.compute) != _place(compute):
                raise InputError(f"metric {name!r}: {'.'.join(_place(known.compute))} has that name; choose another")
            del _METRICS[known.compute]  # the same definition executed again, as a cell of a notebook
        made = Metric(name, compute, higher_is_better, range, description, source, level, of, baselines)
        _METRICS.setdefault(compute, []).insert(0, made)  # Python applies the last decorator first
        return compute

    return decorated


def metrics_of(function: Callable[..., Any]) -> tuple[Metric, ...]:
    """The metrics that a function computes; those of the function inside a partial; none for one that is not decorated."""
    return tuple(_METRICS.get(getattr(function, "func", function), ()))


def all_metrics() -> list[Metric]:
    """All metrics of the modules that have been imported, in the order of their definitions."""
    return [one for several in _METRICS.values() for one in several]


def metric_of(name: str) -> Metric | None:
    """The metric of that name, if there is one."""
    return next((one for one in all_metrics() if one.name == name), None)


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__
