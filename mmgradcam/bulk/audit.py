"""A whole data set explained and scored, streamed, so that it can be stopped and goes on where it was."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmgradcam.bulk.asked import Asked, asked_of
from mmgradcam.bulk.intervals import Figure, figures
from mmgradcam.bulk.measures import Batch, Measure
from mmgradcam.data.records import Photo
from mmgradcam.data.stream import Source
from mmgradcam.errors import InputError, ModelError
from mmgradcam.explaining import AnyMethod, compare
from mmgradcam.explanation import Explanation
from mmgradcam.pictures import open_picture
from mmgradcam.task import Task
from mmgradcam.writing import write_file

ABOUT = ("record", "picture", "target", "kind", "group", "right", "score", "probability", "method")
"""Columns of a row that say what it is of; the rest are measured."""


@dataclass
class Audit:
    """What was measured on a data set.

    Attributes:
        model: whose explanations.
        data: the data set's name.
        rows: a dict for each target and method: `ABOUT`, and the metrics' columns.
        bad: "RECORD: reason" of records that could not be read.
        silent: how many records say nothing that the model could be asked.
        seconds: by metric, and "explain", how long it took.
        pictures: how many were explained.
    """

    model: str
    data: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    silent: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pictures: int = 0

    @property
    def methods(self) -> list[str]:
        """In the order they were given."""
        return list(dict.fromkeys(row["method"] for row in self.rows))

    def columns(self) -> list[str]:
        """What was measured."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name not in ABOUT))

    def figures(self, method: str, kind: str | None = None) -> dict[str, Figure]:
        """Means of one method's rows, all or of one kind, with 95% intervals over pictures."""
        rows = [row for row in self.rows if row["method"] == method and (kind is None or row["kind"] == kind)]
        columns = {name: [row.get(name) for row in rows] for name in ("right", *self.columns())}
        return figures([row["record"] for row in rows], columns)

    def kinds(self) -> list[str]:
        """Kinds of targets, the most frequent first."""
        count: dict[str, int] = defaultdict(int)
        for row in self.rows:
            count[row["kind"]] += bool(row["kind"])
        return sorted((kind for kind, n in count.items() if n), key=lambda kind: -count[kind])

    def speeds(self) -> dict[str, float]:
        """Pictures a second, of explaining by all methods and of each metric."""
        return {name: self.pictures / spent for name, spent in self.seconds.items() if spent > 0}


def audit(
    task: Task,
    data: Source,
    methods: Sequence[AnyMethod],
    metrics: Sequence[Measure],
    *,
    limit: int | None = None,
    taps: Sequence[Any] | None = None,
    batch: int = 8,
    out: str | Path | None = None,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> Audit:
    """Explains a data set by several methods and measures the maps; one encode per picture for all methods.

    Args:
        task: a captioner, a model of questions or a classifier.
        data: as of `mmgradcam.data.sources.open_data`.
        methods: as of `compare`.
        metrics: functions such as those of `mmgradcam.bulk.measures`.
        limit: number of records, from the first, 1 or more; all of them by default.
        taps: as of `explain`.
        batch: pictures explained and measured together.
        out: a folder to keep what is done in, part by part; what lies there of the same run is not done again.
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
    out = None if out is None else Path(out)
    count = len(data) if limit is None else min(limit, len(data))
    named, ways = [name_of(metric) for metric in metrics], [name_of(method) for method in methods]
    if len(set(ways)) < len(ways):
        raise InputError(f"evaluate: expected methods of different names, got {', '.join(ways)}; rows are told apart by them")
    run: dict[str, Any] = {"model": task.name or type(task).__name__, "weights": task.fingerprint(), "data": data.name}
    run["records"] = len(data)  # the lists of a data set have one name
    run |= {
        "metrics": named,
        "methods": ways,
        "taps": None if taps is None else [str(t) for t in taps],
        "batch": batch,
    }
    made = _kept(out, run, count)
    starts: Iterable[int] = range(len(made.parts) * batch, count, batch)
    coming = data.since(len(made.parts) * batch) if count > len(made.parts) * batch else iter(())
    starts = progress(starts, -(-count // batch) - len(made.parts)) if progress else starts
    for start in starts:
        begun = any(one["rows"] for one in made.parts)
        part = _part(task, coming, start, min(batch, count - start), methods, metrics, taps, data, out, begun)
        made.add(part)
        if out is not None:
            write_file(out / "parts" / f"{len(made.parts) - 1:06}.json", json.dumps(part).encode())
    return made.audit()


def _part(
    task: Task,
    coming: Iterator[Photo | None],
    start: int,
    count: int,
    methods: Sequence[AnyMethod],
    metrics: Sequence[Measure],
    taps: Sequence[Any] | None,
    data: Source,
    out: Path | None,
    begun: bool,
) -> dict[str, Any]:
    """The rows of a batch of records, and what else is to be known of it."""
    known = len(data.bad)
    asked: list[tuple[int, Asked]] = []
    silent = 0
    for record in range(start, start + count):
        photo = next(coming)
        if photo is not None:
            try:
                open_picture(photo.image)
            except InputError as error:
                data.bad.append(f"{photo.name}: {error}")
                photo = None
        some = [] if photo is None else asked_of(task, photo)
        asked += [(record, one) for one in some]
        silent += photo is not None and not some
    begin = time.perf_counter()
    asked, explained = _explained(task, asked, methods, taps, data, begun)
    spent = time.perf_counter() - begin
    made: dict[str, Any] = {
        "rows": [],
        "bad": data.bad[known:],
        "silent": silent,
        "seconds": {"explain": spent} if asked else {},
        "pictures": len({record for record, _ in asked}),
        "records": count,
    }
    if not asked:
        return made
    every = [one for some in explained for one in some]
    truths = [asked[e][1].truths(one) for e, some in enumerate(explained) for one in some]
    names = [one.photo.name for _, one in asked for _ in methods]
    labels = list(getattr(task, "labels", ()))
    classes = {label: labels.index(label) + 1 for label in dict.fromkeys(labels)}
    whole = Batch(every, truths, [name_of(m) for m in methods], names, classes, out)
    columns: dict[str, Sequence[Any]] = {}
    for metric in metrics:
        begin = time.perf_counter()
        told = metric(whole)
        made["seconds"][name_of(metric)] = time.perf_counter() - begin
        for name, values in told.items():
            if name in ABOUT or len(values) != len(whole.rows):
                raise InputError(
                    f"metric {name_of(metric)}: expected a column of {len(whole.rows)} values, one per row, and a name not "
                    f"among {', '.join(ABOUT)}; got {name!r} of {len(values)}"
                )
        columns |= told
    for n, (e, k) in enumerate(whole.rows):
        (record, one), target, truth = asked[e // len(methods)], every[e].targets[k], truths[e][k]
        about = (
            record, one.photo.name, target.label, truth.kind, truth.group, truth.right, float(every[e].scores[k]),
            target.probability, whole.methods[e % len(methods)],
        )  # fmt: skip
        made["rows"].append(dict(zip(ABOUT, about, strict=True)) | {name: _plain(v[n]) for name, v in columns.items()})
    return made


def _explained(
    task: Task,
    asked: list[tuple[int, Asked]],
    methods: Sequence[AnyMethod],
    taps: Sequence[Any] | None,
    data: Source,
    begun: bool,
) -> tuple[list[tuple[int, Asked]], list[list[Explanation]]]:
    """What can be explained, and how; what the model cannot be asked is named as malformed, unless that is all."""

    def explained(some: Sequence[tuple[int, Asked]]) -> list[list[Explanation]]:
        return compare(task, [one.photo.image for _, one in some], methods, taps=taps, each=[one.query for _, one in some])

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
                data.bad.append(f"{one.photo.name}: {own}")
        if not good and not begun:
            raise error
        return good, made


@dataclass
class _Kept:
    """The parts of a run, of this one or of those before it that were stopped."""

    run: Mapping[str, Any]
    parts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: dict[str, Any]) -> None:
        self.parts.append(part)

    def audit(self) -> Audit:
        made = Audit(str(self.run["model"]), str(self.run["data"]))
        for part in self.parts:
            made.rows += part["rows"]
            made.bad += part["bad"]
            made.silent += part["silent"]
            made.pictures += part["pictures"]
            for name, spent in part["seconds"].items():
                made.seconds[name] += spent
        return made


def _kept(out: Path | None, run: Mapping[str, Any], count: int) -> _Kept:
    """What lies in a folder of the same run, up to the first part that is missing or that a limit cuts at another record."""
    made = _Kept(run)
    if out is None:
        return made
    told = out / "run.json"
    if not told.exists():
        if any((out / "parts").glob("*.json")):
            raise InputError(f"{out}: expected parts of a run beside its run.json, which is gone; choose another --out")
        write_file(told, json.dumps(run, indent=2).encode())
        return made
    try:
        before = json.loads(told.read_text(encoding="utf-8"))
        other = [name for name in run if before.get(name) != run[name]]
        if other:
            raise InputError(
                f"{out}: holds a run of other {', '.join(other)} ({before.get(other[0])} there, {run[other[0]]} now); "
                "choose another --out, or delete it"
            )
        for path in sorted((out / "parts").glob("*.json")):
            part = json.loads(path.read_text(encoding="utf-8"))
            done = len(made.parts)
            if path.stem != f"{done:06}" or part["records"] != min(run["batch"], count - done * run["batch"]):
                break
            made.add(part)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError) as error:
        raise InputError(
            f"{out}: expected what an earlier run wrote, and a file there is damaged ({error}); delete it"
        ) from None
    return made


def name_of(function: Any) -> str:
    """What a method or metric is called, the settings of a partial with it."""
    if isinstance(function, partial):
        settings = ", ".join([*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())])
        return f"{name_of(function.func)}({settings})"
    return str(getattr(function, "__name__", type(function).__name__))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
