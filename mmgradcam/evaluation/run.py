"""A whole data set explained and scored, streamed, so that it can be stopped and goes on where it was."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmgradcam.datasets.records import Sample
from mmgradcam.datasets.stream import MALFORMED, Source, named
from mmgradcam.errors import InputError, ModelError
from mmgradcam.evaluation.batch import Batch, Measure
from mmgradcam.evaluation.intervals import Figure, Sums
from mmgradcam.evaluation.measures import listed, measures_of
from mmgradcam.evaluation.parts import Part, Parts, content_of, key_of
from mmgradcam.evaluation.queries import Asked, asked_of, check_askable, prepared, unread_by
from mmgradcam.evaluation.rows import FIELDS, Row, Rows
from mmgradcam.explaining.arguments import AnyMethod, method_of
from mmgradcam.explaining.explain import compare
from mmgradcam.explanation import Explanation
from mmgradcam.images.pictures import open_picture
from mmgradcam.methods import gradcam
from mmgradcam.metrics.definition import Metric
from mmgradcam.task import Task
from mmgradcam.utils.naming import name_of


@dataclass
class Audit:
    """What was measured on a data set.

    Attributes:
        model: whose explanations.
        data: the data set's name.
        rows: a dict for each target and method: the fields of `mmgradcam.evaluation.rows.SCHEMA`, and the metrics' columns.
        bad: "RECORD: reason" of records that could not be read.
        skipped: how many records say nothing that the model could be asked.
        out_of_vocabulary: how many questions have words that the model does not know, and were not asked.
        seconds: by metric, and "explain", how long it took.
        pictures: how many were explained.
    """

    model: str
    data: str
    rows: Rows = field(default_factory=Rows)
    bad: list[str] = field(default_factory=list)
    skipped: int = 0
    out_of_vocabulary: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pictures: int = 0

    _sums: dict[tuple[str, str | None], Sums] = field(default_factory=dict, repr=False)
    _kinds: Counter[str] = field(default_factory=Counter, repr=False)

    @property
    def methods(self) -> list[str]:
        """In the order they were given."""
        return [method for method, kind in self._sums if kind is None]

    def columns(self) -> list[str]:
        """What was measured."""
        return self.rows.columns

    def add(self, part: Part, path: Path) -> None:
        """What was measured on further samples, and the file that holds the rows."""
        self.rows.add(path, part["rows"])
        self.bad += part["bad"]
        self.skipped += part["skipped"]
        self.out_of_vocabulary += part["out_of_vocabulary"]
        self.pictures += part["pictures"]
        for name, spent in part["seconds"].items():
            self.seconds[name] += spent
        some: dict[tuple[str, str | None], list[Row]] = defaultdict(list)
        for row in part["rows"]:
            some[row["method"], None].append(row)
            if row["kind"]:
                some[row["method"], row["kind"]].append(row)
                self._kinds[row["kind"]] += 1
        for key, rows in some.items():
            columns = {name: [row.get(name) for row in rows] for name in ("correct", *self.rows.numbers)}
            self._sums.setdefault(key, Sums()).add([row["sample"] for row in rows], columns)

    def figures(self, method: str, kind: str | None = None) -> dict[str, Figure]:
        """Means of one method's rows, all or of one kind, with 95% intervals over pictures."""
        found = self._sums.get((method, kind))
        return found.figures() if found else {}

    def wholes(self, method: str) -> dict[str, float]:
        """Metrics that are computed from all rows of one method together, where they apply."""
        there = set(self.columns())
        computing = [one for one in listed() if one.level == "rows" and there.issuperset(one.of)]
        return {one.name: value for one in computing if (value := one.compute(self.rows.of(method))) is not None}

    def metrics(self) -> dict[str, Metric]:
        """The metrics of which there are figures, by name, as they are listed; a plain function's columns have none."""
        there = {"correct", *self.columns()}
        return {one.name: one for one in listed() if one.name in there or (one.of and there.issuperset(one.of))}

    def kinds(self) -> list[str]:
        """Kinds of targets, the most frequent first."""
        return [kind for kind, _ in self._kinds.most_common()]

    def speeds(self) -> dict[str, float]:
        """Pictures a second, of explaining by all methods and of each metric."""
        return {name: self.pictures / spent for name, spent in self.seconds.items() if spent > 0}


def audit(
    task: Task,
    data: Source,
    methods: Sequence[AnyMethod | str],
    metrics: Sequence[Measure | str],
    *,
    limit: int | None = None,
    target_layers: Sequence[Any] | None = None,
    batch: int = 8,
    out: str | Path | None = None,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> Audit:
    """Explains a data set by several methods and measures the maps; one encode per picture for all methods.

    Args:
        task: a captioner, a model of questions or a classifier.
        data: as of `mmgradcam.datasets.sources.open_data`.
        methods: as of `compare`.
        metrics: functions of a `Batch` that return columns, or names as `mmgradcam metrics` lists them.
        limit: number of records, from the first, 1 or more; all of them by default.
        target_layers: as of `explain`.
        batch: pictures explained and measured together.
        out: a folder to keep what is done in, part by part. What lies there of the same run and of the same records is not done
            again: all records are read, and a part whose pictures or truths have changed since, or that is damaged, is measured
            anew, with a warning.
        progress: wraps the iteration over batches, given their number, to show how far it is.

    Returns:
        All rows, whether they were measured now or before.

    Raises:
        InputError: the task is of another kind, what lies in `out` is of another run, two methods have one name, or a metric
            gives more or fewer values than there are rows.
    """
    if not methods or not metrics:
        raise InputError("evaluate: expected at least one method and one metric")
    if limit is not None and limit < 1:
        raise InputError(f"evaluate: expected a limit of 1 or more, got {limit}")
    check_askable(task, data)
    functions = measures_of(metrics)
    chosen: list[AnyMethod] = [method_of(method) or gradcam for method in methods]
    ways = [name_of(method) for method in chosen]
    if len(set(ways)) < len(ways):
        raise InputError(f"evaluate: expected methods of different names, got {', '.join(ways)}; rows are told apart by them")
    out = None if out is None else Path(out)
    count = len(data) if limit is None else min(limit, len(data))
    data = prepared(task, data)
    parts = Parts(out, key_of(task, data.name, len(data), chosen, functions, target_layers, batch))
    parts.begin()
    made = Audit(task.name, data.name, Rows(parts))
    coming = data.since(0)
    numbers = range(-(-count // batch))
    for number in progress(numbers, len(numbers)) if progress else numbers:
        known, start = len(data.bad), number * batch
        photos = [next(coming) for _ in range(min(batch, count - start))]
        content = f"{len(photos)} {content_of([photos, data.bad[known:]])}" if out else ""
        part = parts.kept(number, content)
        if part is None:
            part = _part(task, photos, start, chosen, functions, target_layers, data, known, out, bool(made.rows))
            part = parts.keep(number, content, part)
        made.add(part, parts.path(number))
    return made


def _part(
    task: Task,
    photos: Sequence[Sample | None],
    start: int,
    methods: Sequence[AnyMethod],
    metrics: Sequence[Measure],
    target_layers: Sequence[Any] | None,
    data: Source,
    known: int,
    out: Path | None,
    begun: bool,
) -> Part:
    """The rows of a batch of records, and what else is to be known of it."""
    asked: list[tuple[int, Asked]] = []
    skipped = unread = 0
    for record, photo in enumerate(photos, start):
        if photo is not None:
            try:
                open_picture(photo.image)
                some = asked_of(task, photo)
            except MALFORMED as error:
                data.bad.append(named(photo.name, error))
            else:
                asked += [(record, one) for one in some]
                skipped += not some
                unread += unread_by(task, photo)
    begin = time.perf_counter()
    asked, explained = _explained(task, asked, methods, target_layers, data, begun)
    spent = time.perf_counter() - begin
    made: Part = {
        "rows": [],
        "bad": data.bad[known:],
        "skipped": skipped,
        "out_of_vocabulary": unread,
        "seconds": {"explain": spent} if asked else {},
        "pictures": len({record for record, _ in asked}),
    }
    if not asked:
        return made
    every = [one for some in explained for one in some]
    truths = [asked[e][1].truths(one) for e, some in enumerate(explained) for one in some]
    shown = [one.photo for _, one in asked for _ in methods]
    labels = list(task.labels) if "classes" in task.query_types else []
    classes = {label: labels.index(label) + 1 for label in dict.fromkeys(labels)}
    whole = Batch(every, truths, [name_of(m) for m in methods], shown, classes, out)
    columns: dict[str, Sequence[Any]] = {}
    for metric in metrics:
        begin = time.perf_counter()
        told = metric(whole)
        made["seconds"][name_of(metric)] = time.perf_counter() - begin
        for name, values in told.items():
            if name in FIELDS or len(values) != len(whole.rows):
                raise InputError(
                    f"metric {name_of(metric)}: expected a column of {len(whole.rows)} values, one per row, and a name not "
                    f"among {', '.join(FIELDS)}; got {name!r} of {len(values)}"
                )
        columns |= told
    for n, (e, k) in enumerate(whole.rows):
        (record, one), target, truth = asked[e // len(methods)], every[e].targets[k], truths[e][k]
        fields = (
            record, one.photo.name, target.label, truth.said, truth.kind, truth.group, truth.right, float(every[e].scores[k]),
            target.probability, whole.methods[e % len(methods)],
        )  # fmt: skip
        made["rows"].append(dict(zip(FIELDS, fields, strict=True)) | {name: v[n] for name, v in columns.items()})
    return made


def _explained(
    task: Task,
    asked: list[tuple[int, Asked]],
    methods: Sequence[AnyMethod],
    target_layers: Sequence[Any] | None,
    data: Source,
    begun: bool,
) -> tuple[list[tuple[int, Asked]], list[list[Explanation]]]:
    """What can be explained, and how; what the model cannot be asked is named as malformed, unless that is all."""

    def explained(some: Sequence[tuple[int, Asked]]) -> list[list[Explanation]]:
        return compare(
            task,
            [one.photo.input for _, one in some],
            methods,
            target_layers=target_layers,
            each=[one.query for _, one in some],
        )

    if not asked:
        return [], []
    try:
        return asked, explained(asked)
    except (InputError, ModelError) as error:
        good, made = [], []
        for record, one in asked:
            try:
                made += explained([(record, one)])
                good.append((record, one))
            except (InputError, ModelError) as own:
                data.bad.append(named(one.photo.name, own))
        if not good and not begun:
            raise error
        return good, made
