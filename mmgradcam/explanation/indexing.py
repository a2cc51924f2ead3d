"""Which of an explanation's targets a key means: `words[2]`, `words["ball"]`, `words["ball", 1]`, `words[1:3]`, ..."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from mmgradcam.errors import InputError
from mmgradcam.task import Target, spelled


class NoTarget(InputError, IndexError):
    """There is no such target; the message says which there are."""


def positions_of(targets: Sequence[Target], key: Any) -> list[int]:
    """The positions of the targets that are meant: of one, or of several in a row.

    Args:
        targets: all of an explanation.
        key: a position, a label (in any case), a label and which of its occurrences, a slice, or a phrase.

    Raises:
        NoTarget: there is none.
        InputError: the key is of another kind, or a label stands there more than once.
    """
    if isinstance(key, str):
        found = _spans(targets, key)
        if len(found) > 1:
            at = ", ".join(str(span[0]) for span in found)
            raise InputError(f"{key!r} stands at positions {at}; say which, as in [{found[0][0]}] or [{key!r}, 0]")
        return found[0]
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str):
        found, place = _spans(targets, key[0]), _whole(targets, key[1])
        if not -len(found) <= place < len(found):
            raise NoTarget(f"{key[0]!r} stands there {len(found)} times, so no occurrence {place}")
        return found[place]
    if isinstance(key, slice):
        start, stop, step = (part if part is None else _whole(targets, part) for part in (key.start, key.stop, key.step))
        chosen = list(range(len(targets)))[slice(start, stop, step or None)]
        if not chosen:
            raise NoTarget(f"the slice is empty; there are {len(targets)} targets, {listing(targets)}")
        return chosen
    place = _whole(targets, key)
    if not -len(targets) <= place < len(targets):
        raise NoTarget(f"no target {place}: there are {len(targets)}, {listing(targets)}")
    return [place % len(targets)]


def listing(targets: Sequence[Target]) -> str:
    """Labels for a message: of many, the first."""
    labels = ", ".join(repr(target.label) for target in targets[:40]) or "none"
    return labels + (f" and {len(targets) - 40} more" if len(targets) > 40 else "")


def _whole(targets: Sequence[Target], key: Any) -> int:
    try:
        return operator.index(key)
    except TypeError:
        raise InputError(
            f"expected a position, a label, a label with its occurrence (label, 1), or a slice of positions, got {key!r:.60}; "
            f"there are {len(targets)} targets, {listing(targets)}"
        ) from None


def _spans(targets: Sequence[Target], text: str) -> list[list[int]]:
    labels = [target.label.lower() for target in targets]
    spans = [[i] for i, label in enumerate(labels) if label == text.lower()]
    sought = " ".join(text.lower().split())
    if not spans and sought:
        runs = [(i, j) for i in range(len(labels)) for j in range(i + 2, min(len(labels), i + len(sought)) + 1)]
        said = ((" ".join(labels[i:j]), spelled(targets[i:j]).lower()) for i, j in runs)
        spans = [list(range(*run)) for run, ways in zip(runs, said, strict=True) if sought in ways]
    if not spans:
        raise NoTarget(f"{text!r:.60} is not among the targets; there are {listing(targets)}")
    return spans
