"""What the words rest on: how much more likely the picture makes them, and what a question alone would answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import ImageOps
from torch import Tensor

from mmgradcam.engine import encode, scores
from mmgradcam.errors import InputError
from mmgradcam.explaining.model_input import model_input_of
from mmgradcam.explanation import Explanation
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import open_picture
from mmgradcam.layers import preserve_state
from mmgradcam.metrics.perturbations import Seen, task_of
from mmgradcam.task import Target, Task

Floats = npt.NDArray[np.float64]
BATCH = 32
"""Pictures encoded together."""


@overload
def grounding(explanations: Explanation, without: Any = ..., batch: int = ...) -> Floats: ...


@overload
def grounding(explanations: Sequence[Explanation], without: Any = ..., batch: int = ...) -> list[Floats]: ...


def grounding(
    explanations: Explanation | Sequence[Explanation], without: Any = "grey", batch: int = BATCH
) -> Floats | list[Floats]:
    """How much more likely the picture makes each target: log p(target | picture) - log p(target | what is shown instead).

    Args:
        explanations: one, or many of one task, whose pictures are encoded together.
        without: what the model is shown instead: "grey"; "blur", the picture under a Gaussian of a tenth of its shorter side;
            another picture of any kind `explain` takes, cut to the same aspect; or what a function makes of the pixels as the
            model sees them, (3, h, w) to the same shape.
        batch: pictures encoded together.

    Returns:
        (K,) natural logarithms, 0 where it is as likely without; of an answer held against another, the difference of both.
        A list of them for many explanations.

    Raises:
        InputError: the targets have no log-probability, or the explanation was loaded from a file and holds no grounding.

    Source: the pointwise mutual information of target and picture (Fano 1961), the model's marginal being that without it.
    """
    if isinstance(explanations, Explanation):
        (made,) = grounding([explanations], without, batch)
        return made
    noted = [_noted(one) if isinstance(without, str) and without == "grey" else None for one in explanations]
    asked = [one for one, known in zip(explanations, noted, strict=True) if known is None]
    found = (given - instead for given, instead in log_probs_of(asked, [without], batch))
    return [next(found) if known is None else known for known in noted]


def log_probs_of(explanations: Sequence[Explanation], without: Sequence[Any], batch: int = BATCH) -> list[Floats]:
    """Log-probabilities of each explanation's targets given its picture, and given each of V things shown instead.

    Args:
        explanations: of one task.
        without: V of what `grounding` takes.
        batch: pictures encoded together.

    Returns:
        Of each explanation (1 + V, K) natural logarithms.

    Raises:
        InputError: as `grounding`.
    """
    together = zip(explanations, _features(explanations, without, batch), strict=True)
    return [_likely(one.task, features, one.targets) for one, features in together]


@dataclass(frozen=True)
class Prior:
    """What a question alone would answer.

    Attributes:
        answer: the answer that was given.
        seen: its probability given the picture, 0..1.
        grey: its probability given a grey picture.
        others: its mean probability given the other pictures; None where there are none.
        blind: the likeliest answers given the grey picture, with their probabilities.
        elsewhere: the likeliest given the other pictures, with their mean probabilities; empty where there are none.
    """

    answer: str
    seen: float
    grey: float
    others: float | None
    blind: tuple[tuple[str, float], ...]
    elsewhere: tuple[tuple[str, float], ...]

    @property
    def explained(self) -> float:
        """How far the question alone explains the answer, 0..1: its probability without the picture over that with it.

        Without is given the other pictures where there are some, else grey.
        """
        without = self.grey if self.others is None else self.others
        return min(1.0, without / self.seen) if self.seen > 0 else 1.0

    def __str__(self) -> str:
        given = f"{self.grey:.2f} given grey" + ("" if self.others is None else f", {self.others:.2f} given other pictures")
        alone = ", ".join(f"{label} {p:.2f}" for label, p in (self.elsewhere or self.blind)[:3])
        return f"{self.answer}: p {self.seen:.2f} given the picture, {given}; without it the likeliest are {alone}"


def language_prior(explanation: Explanation, others: Sequence[Any] = (), top: int = 5) -> Prior:
    """What the question of an explanation would be answered without its picture.

    Args:
        explanation: of an answer; its first target counts.
        others: other pictures, over which the answers' probabilities are averaged.
        top: how many of the likeliest answers to tell; candidates are that many of each picture shown.

    Raises:
        InputError: it is of no question, or of answers without probabilities.
    """
    question, first = explanation.metadata.query.get("question"), explanation[0]
    if question is None:
        raise InputError("language_prior: expected an explanation of one question's answer, explain(..., question=...)")
    task, size = first.task, first.explainer.view.size
    query = {"question": question, "top": top, **({} if size is None else {"size": size})}
    (features,) = _features([first], ["grey", *others])
    candidates: dict[str, Target] = {}
    with preserve_state(task.modules()), torch.no_grad():
        for row in features[1:]:
            for target in task.targets(row[None], **query):
                candidates.setdefault(target.label, target)
    given = np.exp(_likely(task, features, first.targets).squeeze(1))
    found = np.exp(_likely(task, features[1:], list(candidates.values())))

    def likeliest(p: Floats) -> tuple[tuple[str, float], ...]:
        ranked = sorted(zip(candidates, p.tolist(), strict=True), key=lambda pair: -pair[1])
        return tuple((label, value) for label, value in ranked[:top])

    mean, elsewhere = (float(given[2:].mean()), likeliest(found[1:].mean(0))) if others else (None, ())
    return Prior(first.label, float(given[0]), float(given[1]), mean, likeliest(found[0]), elsewhere)


def _noted(one: Explanation) -> Floats | None:
    """What `explain(..., grounding=True)` noted."""
    noted = [target.grounding for target in one.targets if target.grounding is not None]
    return np.array(noted) if len(noted) == len(one) else None


def _features(explanations: Sequence[Explanation], without: Sequence[Any], batch: int = BATCH) -> Iterator[Tensor]:
    """(1 + V, C, *grid) features of each explanation's picture and of what is shown instead, encoded in batches."""
    if not explanations:
        return
    task, size = task_of(explanations), max(1, batch // (1 + len(without)))
    instead = [_opened(other) for other in without]
    device = task.device
    at = 0
    while at < len(explanations):
        seen = [Seen(task, one.explainer.view) for one in explanations[at : at + size]]
        alike = next((i for i, one in enumerate(seen) if one.pixels.shape != seen[0].pixels.shape), len(seen))
        shown = [pixels for one in seen[:alike] for pixels in [one.pixels, *(_shown(one, other) for other in instead)]]
        with preserve_state(task.modules()), torch.no_grad():
            features = encode(task, torch.stack(shown).to(device), []).features.detach()
        yield from torch.split(features, 1 + len(instead))
        at += alike


def _opened(other: Any) -> Any:
    if isinstance(other, str) and other in ("grey", "blur"):
        return other
    if isinstance(other, str) and not Path(other).exists():
        raise InputError(f'without: expected "grey", "blur" or another picture, got {other!r}')
    return other if isinstance(other, Tensor) or callable(other) else open_picture(other)


def _shown(seen: Seen, without: Any) -> Tensor:
    """What the model is shown in place of a picture, or of every frame of a clip."""
    if isinstance(without, str):
        return seen.plain(128) if without == "grey" else seen.fill_blur()
    view = seen.view
    if callable(without):
        without = without(seen.pixels)
    if not isinstance(without, Tensor):
        if view.prepared:
            raise InputError("without: expected a prepared tensor, as the explanation was made of one, got a picture")
        cut = ImageOps.fit(without, view.picture.size)
        source = cut if view.clip is None else Clip((cut,) * len(view.clip), view.clip.rate)
        return model_input_of(seen.task, source).pixels
    if without.shape != seen.pixels.shape:
        raise InputError(f"without: expected a tensor {tuple(seen.pixels.shape)}, got {tuple(without.shape)}")
    return without.to(seen.pixels)


def _likely(task: Task, features: Tensor, targets: Sequence[Target]) -> Floats:
    """(N, K) log-probabilities of K targets given the features of N pictures."""
    with preserve_state(task.modules()), torch.no_grad():
        if task.unit == "log-probability":
            rows: list[Tensor | None] = list(scores(task, features, targets))
        else:
            rows = [task.log_prob(row[None], targets) for row in features]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        raise InputError(
            f"{task.name}: grounding needs log-probabilities of its targets, and it has none; give the task a `log_prob`"
        )
    return np.asarray(torch.stack(known).double().cpu().numpy())
