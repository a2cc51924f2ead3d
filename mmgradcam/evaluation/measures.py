"""The metrics of `mmgradcam evaluate --metrics`: all of them, and those that a user names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mmgradcam.errors import InputError
from mmgradcam.evaluation import doubts, faithfulness, generated, localization, protocols, segmentation
from mmgradcam.evaluation.batch import Measure
from mmgradcam.evaluation.queries import CAPTIONS, QUESTIONS
from mmgradcam.metrics.definition import Metric, all_metrics
from mmgradcam.task import Task

MODULES = [one.__name__ for one in (localization, segmentation, faithfulness, doubts, generated, protocols)]
"""The order in which metrics are listed; those of a user's own follow."""


def listed() -> list[Metric]:
    """All metrics, module by module."""
    places = {name: n for n, name in enumerate(MODULES)}
    return sorted(all_metrics(), key=lambda one: places.get(one.compute.__module__, len(places)))


def measures() -> dict[str, Measure]:
    """The functions of a batch that compute metrics, by name; without `correct`, which every row has."""
    computing = [one.compute for one in listed() if one.level == "target" and one.name != "correct"]
    return {compute.__name__: compute for compute in computing}


def defaults_of(task: Task) -> list[str]:
    """The metrics that a model is measured by unless others are named: where its maps peak, and how good what it says is."""
    types = task.query_types
    if types & CAPTIONS:
        return ["pointing", "heat", "captions", "statements"]
    return ["pointing", "heat", "answers", "correct_answers"] if types & QUESTIONS else ["pointing", "heat", "accuracy"]


def measures_of(names: Iterable[str | Measure]) -> list[Measure]:
    """The functions that compute metrics, each once.

    Args:
        names: of functions, as "pointing", or of one of the metrics of a function, as "pointing_swapped"; functions are taken
            as they are.

    Raises:
        InputError: there is no metric of that name.
    """
    known = measures()
    columns = {one.name: one.compute for one in all_metrics() if one.compute in known.values()}
    found: list[Measure] = []
    for name in names:
        if isinstance(name, str) and name not in known and name not in columns:
            near = difflib.get_close_matches(name, [*known, *columns], n=3, cutoff=0.4) or list(known)
            raise InputError(f"there is no metric {name!r}; did you mean {' or '.join(near)}? All: {', '.join(known)}")
        found.append((known.get(name) or columns[name]) if isinstance(name, str) else name)
    return list(dict.fromkeys(found))
