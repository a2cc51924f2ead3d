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
from mmgradcam.explanation import Explanation
from mmgradcam.metrics.grounding import Floats, log_probs_of

MOVES = ((0.03, 0.0), (-0.025, 0.025), (0.0, -0.04), (0.03, 0.03))
"""Shifts right and down, as shares of the sides, that a statement read off the picture outlasts."""
COLUMNS = ("log p", "grounding", "unsteady")
"""What the flag rests on; see `evidence`."""
LIMITS = ((-12.0, 0.0), (-8.0, 8.0), (-4.6, 1.6))
"""What lies beyond says nothing more."""


Calibration = Mapping[str, Any]
"""A fitted logistic regression, the threshold above which a word is flagged, and the models it was fitted on."""


@overload
def hallucination_probability(explanations: Explanation, fitted: Calibration | None = ...) -> Floats: ...


@overload
def hallucination_probability(explanations: Sequence[Explanation], fitted: Calibration | None = ...) -> list[Floats]: ...


def hallucination_probability(
    explanations: Explanation | Sequence[Explanation], fitted: Calibration | None = None
) -> Floats | list[Floats]:
    """How likely it is that a word or an answer is made up: that the picture does not hold what it says.

    A logistic regression on what the model itself gives away (`evidence`). It is calibrated at even odds, as if half of what
    is said were false: of a model that errs rarely, fewer of the words at 0.8 are false than 80%. docs/grounding.md tells how
    well it does, and how badly where it was not calibrated.

    Args:
        explanations: of the words of a caption, or of answers to a question; many are of one task.
        fitted: one of `calibrations` or your own; by default that of the model, by its name.

    Returns:
        (K,) probabilities, nan of what nobody claims (`Target.asserted`): an answer that the model ranks below its own, or one
        answer held against another; a list of them for many.

    Raises:
        InputError: there is no calibration for the model, its targets have no log-probability, or the explanation was loaded
            from a file.
    """
    if isinstance(explanations, Explanation):
        (made,) = hallucination_probability([explanations], fitted)
        return made
    by = [fitted or _fitted(one) for one in explanations]
    return [
        np.where([target.asserted for target in one.targets], chances(told, x), np.nan)
        for one, told, x in zip(explanations, by, evidence(explanations), strict=True)
    ]


def is_hallucinated(explanation: Explanation, fitted: Calibration | None = None) -> npt.NDArray[np.bool_]:
    """(K,) bool: which of what is said to doubt: P above 0.5 and above what 5% of the true ones reached, in validation."""
    told = fitted or _fitted(explanation)
    return np.asarray(hallucination_probability(explanation, told) > told["threshold"])


def annotate_hallucination(explanation: Explanation, fitted: Calibration | None = None) -> Explanation:
    """The same explanation, what is said in it marked with how likely it is made up, which pages, tables and files show."""
    told, made = fitted or _fitted(explanation), copy(explanation)
    made.targets = [
        replace(t, hallucination_probability=None if np.isnan(p) else float(p), is_hallucinated=bool(p > told["threshold"]))
        for t, p in zip(explanation.targets, hallucination_probability(explanation, told), strict=True)
    ]
    return made


def calibrated(explanation: Explanation) -> bool:
    """Whether a flag was calibrated for its model."""
    return any(explanation.metadata.model in told["models"] for told in calibrations().values())


@cache
def calibrations() -> Mapping[str, Calibration]:
    """What there is: "words" and "answers" of models of scenes, and "photos", nouns of a small captioner of photos."""
    read: Mapping[str, Calibration] = json.loads(
        (files("mmgradcam.metrics") / "hallucination.json").read_text(encoding="utf-8")
    )
    return read


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
    return [columns(rows) for rows in log_probs_of(explanations, shown, batch)]


def columns(rows: Floats) -> Floats:
    """(6, K) log-probabilities given the picture, grey and the shifted copies -> (K, 3) evidence."""
    steady = np.delete(rows, 1, 0).std(0)
    return np.stack([rows[0], rows[0] - rows[1], np.log(np.maximum(steady, 0.01))], 1)


def shifted(pixels: Tensor, right: float, down: float) -> Tensor:
    """Pixels (..., h, w) moved by shares of their width and height; what comes in repeats the edge.

    >>> shifted(torch.tensor([[[1.0, 2.0, 3.0]]]), right=1 / 3, down=0.0)
    tensor([[[1., 1., 2.]]])
    """
    h, w = pixels.shape[-2:]
    rows = (torch.arange(h) - round(down * h)).clamp(0, h - 1)
    columns = (torch.arange(w) - round(right * w)).clamp(0, w - 1)
    return pixels[..., rows, :][..., columns]


def chances(fitted: Calibration, x: Floats) -> Floats:
    """(K,) probabilities of a fitted logistic regression, of (K, F) evidence."""
    low, high = np.array(fitted["limits"]).T
    z = (np.clip(x, low, high) - fitted["mean"]) / fitted["std"]
    return np.asarray(1 / (1 + np.exp(-(fitted["bias"] + z @ np.array(fitted["weights"])))))


def _fitted(one: Explanation) -> Calibration:
    for told in calibrations().values():
        if one.metadata.model in told["models"]:
            return told
    raise InputError(
        f"annotate_hallucination: no flag is calibrated for {one.metadata.model}; "
        "fitted=calibrations()['words'] tries that of others"
    )
