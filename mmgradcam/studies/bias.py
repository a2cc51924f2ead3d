"""Does a model treat two groups of pictures, or two words, differently, and does it look elsewhere for it?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from mmgradcam.datasets.records import Mask, Region, Sample, where
from mmgradcam.errors import InputError
from mmgradcam.explaining.explain import explain
from mmgradcam.explanation import Explanation
from mmgradcam.metrics.significance import Difference, between, corrected
from mmgradcam.probe import AskingMethod
from mmgradcam.studies.bias_report import BiasReport, Example
from mmgradcam.task import Method, Query, Task

RegionRule = Callable[[Sample, tuple[int, int]], Mask | None]
"""A photo and a (height, width) -> where in it the region is; None where nobody said or there is none."""

FEWEST = 5
"""Pictures that each group must have for a measure to be compared."""
EACH = 6
"""Pictures of each group that the page shows."""


@dataclass(frozen=True)
class Asked:
    """What one picture is asked.

    Attributes:
        explain: query for `explain`, whose first target's heat is measured.
        predict: query under which the model says what it thinks; None: it is not asked.
        right: labels that are right then.
    """

    explain: Query
    predict: Query | None = None
    right: tuple[str, ...] = ()


def ask_class(photo: Sample) -> Asked:
    """Of a classifier: the photo's class, its first thing."""
    if not photo.objects:
        raise InputError(
            f"{photo.name}: expected a photo with its class among its things, got none; write an `ask` of your own"
        )
    label = photo.objects[0].label
    return Asked({"classes": [label]}, {}, (label,))


def ask_question(photo: Sample) -> Asked:
    """Of a VQA model: the photo's first question and its first right answer."""
    if not photo.questions:
        raise InputError(f"{photo.name}: expected a photo with a question, got none; write an `ask` of your own")
    one = photo.questions[0]
    return Asked({"question": one.text, "answer": one.answers[0]}, {"question": one.text}, one.answers)


def thing(*labels: str) -> RegionRule:
    """The region of all of a photo's things of these labels, or of all its things if none is named."""
    return lambda photo, shape: _union((one for one in photo.objects if not labels or one.label in labels), shape)


def phrase(*types: str) -> RegionRule:
    """The region of all that a photo's captions name and that is of these types, such as "people"; of all if none is named."""
    return lambda photo, shape: _union((one for one in photo.phrases if not types or set(types) & set(one.types)), shape)


def outside(region: RegionRule) -> RegionRule:
    """All but a region: the context."""

    def rest(photo: Sample, shape: tuple[int, int]) -> Mask | None:
        inside = region(photo, shape)
        return None if inside is None else ~inside

    return rest


def _union(some: Iterable[Region], shape: tuple[int, int]) -> Mask | None:
    found = [mask for one in some if (mask := where(one, shape)) is not None]
    return np.logical_or.reduce(found) if found else None


def bias_report(
    task: Task,
    photos: Iterable[Sample],
    groups: tuple[str, str],
    *,
    ask: Callable[[Sample], Asked] = ask_class,
    regions: Mapping[str, RegionRule] | None = None,
    method: Method | AskingMethod | None = None,
    target_layers: Sequence[Any] | None = None,
    least: float = 0.01,
    resamples: int = 10_000,
    seed: int = 0,
    batch: int = 32,
) -> BiasReport:
    """Holds two groups of pictures against each other: how often the model is right, how sure, and where its heat goes.

    Args:
        task: any task of pictures.
        photos: of both groups, as their `group` says; those of others are left out, and counted.
        groups: names of the two.
        ask: what each is asked; `ask_class`, `ask_question` or a function of your own.
        regions: where to look for heat, by name; by default each label of the photos' things, and "elsewhere".
        method: as for `explain`.
        target_layers: as for `explain`.
        least: the smallest difference of shares that counts, in 0..1: many pictures show that nothing is quite the same.
        resamples: of the bootstrap and the permutation test.
        seed: of both.
        batch: pictures explained together.

    Returns:
        A `BiasReport`: one row per measure, each with a 95% interval, a p, and Holm's correction for all rows.

    Raises:
        InputError: no two groups of at least 5 pictures.
    """
    kept = Kept(groups)
    photos = iter(photos)
    how: dict[str, Any] = {"method": method, "target_layers": target_layers, "batch": batch}
    for part in _parts(photos, kept, batch):
        asked = [ask(photo) for photo in part]
        images = [photo.image for photo in part]
        made = explain(task, images, each=[a.explain for a in asked], **how)
        say = [i for i, a in enumerate(asked) if a.predict is not None]
        told = explain(task, [images[i] for i in say], each=[asked[i].predict or {} for i in say], **how) if say else []
        said = {i: one.labels[0] for i, one in zip(say, told, strict=True)}
        for i, (photo, one) in enumerate(zip(part, made, strict=True)):
            if i in said:
                kept.add("right", photo, float(said[i] in asked[i].right))
            if (p := one.targets[0].probability) is not None:
                kept.add("probability of what is right", photo, p)
            kept.measure(photo, one[0], regions, said.get(i, ""))
    return kept.report(least, resamples, seed)


def _parts(photos: Iterator[Sample], kept: Kept, size: int) -> Iterator[list[Sample]]:
    """Batches of photos of the two groups."""
    while part := list(islice(photos, size)):
        mine = [photo for photo in part if photo.group in kept.groups]
        kept.others += len(part) - len(mine)
        if mine:
            yield mine


@dataclass
class Kept:
    """Values of each measure, by group, as they come in."""

    groups: tuple[str, str]
    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    numbers: set[str] = field(default_factory=set)
    """The measures that are no shares."""
    others: int = 0
    first: Explanation | None = None

    def add(self, what: str, photo: Sample, value: float, share: bool = True) -> None:
        if not share:
            self.numbers.add(what)
        self.values[what][photo.group].append(value)

    def measure(self, photo: Sample, one: Explanation, regions: Mapping[str, RegionRule] | None, said: str) -> None:
        """Where one target's heat goes."""
        self.counts[photo.group] += 1
        self.first = one
        heat = one.heat()
        total = float(heat.sum())
        self.add(EMPTY, photo, float(total == 0))
        if self.counts[photo.group] <= EACH:
            self.examples.append(Example(photo.group, photo.name, one.label, said, one.overlay(), one.caption()))
        if total == 0:
            return
        if regions is None:
            regions = {
                **{label: thing(label) for label in dict.fromkeys(t.label for t in photo.objects)},
                "elsewhere": outside(thing()),
            }
        for name, region in regions.items():
            mask = region(photo, (heat.shape[0], heat.shape[1]))
            if mask is not None:
                self.add(f"heat on {name}" if name != "elsewhere" else "heat elsewhere", photo, float(heat[mask].sum()) / total)

    def report(
        self, least: float, resamples: int, seed: int, more: Sequence[Difference] = (), notes: Sequence[str] = ()
    ) -> BiasReport:
        if self.first is None or min(self.counts[group] for group in self.groups) < FEWEST:
            got = ", ".join(f"{self.counts[group]} of {group!r}" for group in self.groups)
            raise InputError(f"expected at least {FEWEST} pictures of each group, got {got}, and {self.others} of none")
        rows, told = [], list(notes)
        for what, by in self.values.items():
            first, second = (by[group] for group in self.groups)
            if what == EMPTY and not any(first + second):
                continue
            if min(len(first), len(second)) < FEWEST:
                told.append(f"{what}: not compared, {len(first)} and {len(second)} pictures")
                continue
            rows.append(between(what, first, second, share=what not in self.numbers, resamples=resamples, seed=seed))
        if self.others:
            told.append(f"{self.others} pictures of neither group were left out")
        metadata = self.first.metadata
        return BiasReport(
            metadata.model, metadata.method, metadata.feature_layer, self.groups,
            (self.counts[self.groups[0]], self.counts[self.groups[1]]), corrected([*rows, *more], least),
            tuple(told), tuple(self.examples),
        )  # fmt: skip


EMPTY = "maps that show nothing"
