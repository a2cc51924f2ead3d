"""May a word or an answer be made up? A probability, calibrated on scenes whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.explanation import WORDS, Explanation
from mmgradcam.metrics.relying import Floats, likelihoods

MOVES = ((0.03, 0.0), (-0.025, 0.025), (0.0, -0.04), (0.03, 0.03))
"""Shifts right and down, as shares of the sides, that a statement read off the picture outlasts."""
COLUMNS = ("log p", "reliance", "unsteady")
"""What the flag rests on; see `evidence`."""
LIMITS = ((-12.0, 0.0), (-8.0, 8.0), (-4.6, 1.6))
"""What lies beyond says nothing more."""


@overload
def made_up(explanations: Explanation) -> Floats: ...


@overload
def made_up(explanations: Sequence[Explanation]) -> list[Floats]: ...


def made_up(explanations: Explanation | Sequence[Explanation]) -> Floats | list[Floats]:
    """How likely it is that a word or an answer is made up: that the picture does not hold what it says.

    A logistic regression on what the model itself gives away. It is calibrated at even odds, as if half of what is said were
    false: of a model that errs rarely, fewer of the words at 0.8 are false than 80%. A model that is surely wrong is not found
    out. docs/reliance.md tells how well it does.

    Args:
        explanations: of the words of a caption, or of answers to a question; many are of one task.

    Returns:
        (K,) probabilities, nan of an answer held against another, which says nothing; a list of them for many.

    Raises:
        InputError: it is of something else, its targets have no log-probability, or it was loaded from a file.
    """
    many = not isinstance(explanations, Explanation)
    given: list[Explanation] = list(explanations) if many else [explanations]  # type: ignore[list-item]
    kinds = [_kind(one) for one in given]
    made = [
        np.where(_contrast(one), np.nan, chances(_fitted()[kind], x))
        for one, kind, x in zip(given, kinds, evidence(given), strict=True)
    ]
    return made if many else made[0]


def flagged(explanation: Explanation) -> npt.NDArray[np.bool_]:
    """(K,) bool: which words or answers to doubt: those above a threshold that 5% of true ones of validation scenes reach."""
    return np.asarray(made_up(explanation) > _fitted()[_kind(explanation)]["threshold"])


def doubt(explanation: Explanation) -> Explanation:
    """The same explanation, its targets marked with how likely they are made up, which the page and the table then show."""
    chance, threshold, made = made_up(explanation), _fitted()[_kind(explanation)]["threshold"], copy(explanation)
    made.targets = [
        replace(t, made_up=None if np.isnan(p) else float(p), flagged=bool(p > threshold))
        for t, p in zip(explanation.targets, chance, strict=True)
    ]
    return made


def evidence(explanations: Sequence[Explanation], batch: int = 48) -> list[Floats]:
    """What the flag rests on.

    Args:
        explanations: of one task.
        batch: pictures encoded together; six for each explanation.

    Returns:
        Of each (K, 3), in the order of `COLUMNS`: the log-probability given the picture; that less the log-probability given
        grey; and the logarithm of its standard deviation, at least 0.01, over the picture and four copies shifted a little.
    """
    shown = ["grey", *(partial(shifted, right=right, down=down) for right, down in MOVES)]
    return [columns(rows) for rows in likelihoods(explanations, shown, batch)]


def columns(rows: Floats) -> Floats:
    """(6, K) log-probabilities given the picture, grey and the shifted copies -> (K, 3) evidence."""
    steady = np.delete(rows, 1, 0).std(0)
    return np.stack([rows[0], rows[0] - rows[1], np.log(np.maximum(steady, 0.01))], 1)


def shifted(pixels: Tensor, right: float, down: float) -> Tensor:
    """Pixels (..., h, w) moved by shares of their width and height; what comes in repeats the edge."""
    h, w = pixels.shape[-2:]
    rows = (torch.arange(h) - round(down * h)).clamp(0, h - 1)
    columns = (torch.arange(w) - round(right * w)).clamp(0, w - 1)
    return pixels[..., rows, :][..., columns]


def chances(fitted: Mapping[str, Any], x: Floats) -> Floats:
    """(K,) probabilities of a fitted logistic regression, of (K, F) evidence."""
    low, high = np.array(fitted["limits"]).T
    z = (np.clip(x, low, high) - fitted["mean"]) / fitted["std"]
    return np.asarray(1 / (1 + np.exp(-(fitted["bias"] + z @ np.array(fitted["weights"])))))


@cache
def _fitted() -> Mapping[str, Any]:
    read: Mapping[str, Any] = json.loads((files("mmgradcam.metrics") / "flag.json").read_text(encoding="utf-8"))
    return read


def _kind(one: Explanation) -> str:
    if {"question", "questions"} & one.about.query.keys():
        return "answers"
    if one.about.unit in WORDS:
        return "words"
    raise InputError(
        f"made_up: expected words of a caption or answers to a question, got targets of {one.about.model} in {one.about.unit}"
    )


def _contrast(one: Explanation) -> list[bool]:
    """Of answers, which are held against another: those alone have no probability."""
    return [_kind(one) == "answers" and target.probability is None for target in one.targets]
