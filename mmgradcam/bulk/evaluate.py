"""How good is a model, and its maps, on held-out scenes whose truth is known?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from mmgradcam.data.captions import judge
from mmgradcam.data.questions import questions_of
from mmgradcam.data.render import Picture, render
from mmgradcam.data.scenes import Scene, make_scene
from mmgradcam.data.splits import seeds
from mmgradcam.errors import InputError
from mmgradcam.explaining import explain
from mmgradcam.metrics import Localization
from mmgradcam.task import Method, Task

Figures = dict[str, Any]
BATCH = 32


def evaluate(
    task: Task,
    limit: int = 1000,
    split: str = "test",
    *,
    method: Method | None = None,
    taps: Sequence[Any] | None = None,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> Figures:
    """Accuracy and localization on scenes of a split, the test split unless told otherwise.

    Args:
        task: a captioner or a VQA model of scenes.
        limit: number of scenes.
        split: "validation" or "test".
        method: explain with this method instead of the model's own choice.
        taps: explain at these layers instead of the model's own choice.
        progress: wraps the iteration over batches, given their number, to show how far it is.

    Returns:
        For a captioner `statements` (share of true claims, over all and by role) and localization of kind and color words;
        for a VQA model `accuracy` (over all and by kind of question) and localization of the answers that rest on one object.

    Raises:
        InputError: the task is of another kind.
    """
    if not task.query_types & {"caption", "question"}:
        raise InputError(f"evaluate: expected a captioner or a VQA model of scenes, got {task.name}")
    numbers = seeds(split, limit)
    starts: Iterable[int] = range(0, limit, BATCH)
    starts = progress(starts, -(-limit // BATCH)) if progress else starts
    batches = ([make_scene(seed) for seed in numbers[at : at + BATCH]] for at in starts)
    how: dict[str, Any] = {"method": method, "taps": taps}
    return (_captions if "caption" in task.query_types else _answers)(task, batches, how)


def _captions(task: Task, batches: Iterable[list[Scene]], how: dict[str, Any]) -> Figures:
    claims: dict[str, list[bool]] = defaultdict(list)
    right: list[bool] = []
    places = {"kind": Localization(), "color": Localization()}
    for scenes in batches:
        pictures = [render(scene) for scene in scenes]
        made = explain(task, [p.image for p in pictures], batch=BATCH, **how)
        for scene, picture, explanation in zip(scenes, pictures, made, strict=True):
            judged = judge(explanation.labels, scene)
            right.append(all(claim.true for claim in judged.claims))
            for claim in judged.claims:
                claims[claim.role].append(claim.true)
            for role, place in places.items():
                spoken = [i for i, r in enumerate(judged.roles) if r == role and judged.refers[i]]
                heats = {i: explanation[i].heat() for i in spoken}
                for i in spoken:
                    others = [heats[k] for k in spoken if not set(judged.refers[k]) & set(judged.refers[i])]
                    place.add(heats[i], _mask(picture, judged.refers[i]), others)
    return {
        "statements": _shares(claims),
        "captions_all_true": float(np.mean(right)),
        "localization": {role: place.figures() for role, place in places.items()},
    }


def _answers(task: Task, batches: Iterable[list[Scene]], how: dict[str, Any]) -> Figures:
    correct: dict[str, list[bool]] = defaultdict(list)
    place = Localization()
    for scenes in batches:
        pictures = [render(scene) for scene in scenes]
        asked = [questions_of(scene) for scene in scenes]
        sources = [p.image for p, questions in zip(pictures, asked, strict=True) for _ in questions]
        each = [{"question": q.text} for questions in asked for q in questions]
        made = iter(explain(task, sources, each=each, batch=BATCH, **how))
        for picture, questions in zip(pictures, asked, strict=True):
            explained = [(q, next(made)) for q in questions]
            for question, explanation in explained:
                correct[question.kind].append(explanation[0].label == question.answer)
            single = [(q.refers, e[0].heat()) for q, e in explained if len(q.refers) == 1]
            for refers, heat in single:
                others = [other for at, other in single if at != refers]
                place.add(heat, _mask(picture, refers), others)
    return {"accuracy": _shares(correct), "localization": {"answer": place.figures()}}


def _mask(picture: Picture, things: Sequence[int]) -> Any:
    return picture.masks[list(things)].any(0)


def _shares(found: dict[str, list[bool]]) -> Figures:
    every = [x for some in found.values() for x in some]
    by = {name: float(np.mean(some)) for name, some in sorted(found.items())}
    return {"all": float(np.mean(every)) if every else 0.0, **by, "number": len(every)}
