"""Does a captioner treat two words, such as "man" and "woman", differently, and does it look elsewhere for them?"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmgradcam.datasets.records import Sample
from mmgradcam.errors import InputError
from mmgradcam.explaining.explain import explain
from mmgradcam.explanation import Explanation
from mmgradcam.metrics.significance import within
from mmgradcam.probe import AskingMethod
from mmgradcam.studies.bias import FEWEST, Kept, RegionRule
from mmgradcam.studies.bias_report import BiasReport
from mmgradcam.task import Method, Target, Task


def word_bias_report(
    task: Task,
    photos: Iterable[Sample],
    words: tuple[str, str],
    *,
    regions: Mapping[str, RegionRule] | None = None,
    method: Method | AskingMethod | None = None,
    target_layers: Sequence[Any] | None = None,
    least: float = 0.01,
    resamples: int = 10_000,
    seed: int = 0,
) -> BiasReport:
    """Holds two words of a captioner against each other: each caption is scored with its own word and with the other.

    The groups are the photos of which people said the one word and those of which they said the other. Measured are: how much
    the model prefers the right word, how often it does, where the heat of the contrast goes (the right word's score less the
    other's, differentiated as one), and what the swap does to the rest of the caption.

    Args:
        task: a captioner, asked with caption="...".
        photos: with captions; the first caption that has exactly one of the words, once, counts.
        words: such as ("man", "woman").
        regions: as of `bias_report`.
        method: as for `explain`.
        target_layers: as for `explain`.
        least: the smallest difference of shares that counts, in 0..1: many pictures show that nothing is quite the same.
        resamples: of the bootstrap and the permutation test.
        seed: of both.

    Raises:
        InputError: fewer than 5 photos of a word.
    """
    kept, unread = Kept(words), 0
    rest: tuple[list[float], list[float]] = [], []
    for photo in photos:
        found = _spoken(photo, words)
        if found is None:
            kept.others += 1
            continue
        caption, at = found
        own = words.index(caption[at])
        both = [" ".join((*caption[:at], word, *caption[at + 1 :])) for word in words]
        try:
            read = explain(
                task, [photo.image] * 2, each=[{"caption": c} for c in both], method=method, target_layers=target_layers
            )
        except InputError:  # a word that the model does not know
            unread += 1
            continue
        if any(one.labels[at] != word for one, word in zip(read, words, strict=True)):
            unread += 1
            continue
        for one, total in zip(read, rest, strict=True):
            total.append(sum(likely for i, likely in enumerate(_log_likely(one)) if i != at))
        pair = read[own].targets[at], read[1 - own].targets[at]
        one = explain(contrasting(task, *pair), photo.image, method=method, target_layers=target_layers)
        photo = replace(photo, group=words[own])
        kept.add(f"{task.unit} of the right word less the other's", photo, one.score, share=False)
        kept.add("prefers the right word", photo, float(one.score > 0))
        kept.measure(photo, one, regions, "")
    notes = [f"{unread} captions were left out, which the model cannot read"] if unread else []
    swapped = f"log-probability of the caption's other words, with {words[0]} and with {words[1]}"
    more = [within(swapped, *rest, resamples=resamples, seed=seed)] if len(rest[0]) >= FEWEST else []
    return kept.report(least, resamples, seed, more, notes)


def contrasting(task: Task, target: Target, other: Target) -> Task:
    """The same model, asked for one thing: why the target and not the other; the scores' difference, differentiated as one.

    Args:
        task: whose model; it is not changed.
        target: of any of its queries.
        other: of any of its queries, too.
    """
    asked: Any = copy.copy(task)
    asked.targets_of_each = lambda features, queries: [
        [Target(f"{target.label} rather than {other.label}", (target, other), asserted=False)] for _ in queries
    ]
    asked.scores = lambda features, targets: None
    asked.words = lambda: None
    asked.score = lambda features, targets: (
        task.score(features, [t.value[0] for t in targets]) - task.score(features, [t.value[1] for t in targets])
    )
    made: Task = asked
    return made


def _spoken(photo: Sample, words: tuple[str, str]) -> tuple[tuple[str, ...], int] | None:
    """The first caption that has one of the words once and the other never, and where; lower case."""
    for caption in photo.captions:
        lower = tuple(word.lower() for word in caption)
        at = [i for i, word in enumerate(lower) if word in words]
        if len(at) == 1:
            return lower, at[0]
    return None


def _log_likely(one: Explanation) -> list[float]:
    """Log-probability of each word, which is its score, or else goes with its target; natural logarithm."""
    if one.metadata.unit == "log-probability":
        return [float(score) for score in one.scores]
    if any(target.probability is None for target in one.targets):
        raise InputError(
            f"{one.metadata.model}: expected a captioner that knows the probability of each word, got {one.metadata.unit}s"
        )
    return [math.log(max(target.probability or 0.0, 1e-30)) for target in one.targets]
