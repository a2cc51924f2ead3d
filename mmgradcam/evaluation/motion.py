"""How good is a model of clips, and its maps, on rendered motions whose truth is known frame by frame?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from mmgradcam.errors import InputError
from mmgradcam.explaining.explain import explain
from mmgradcam.images.clips import Clip
from mmgradcam.methods import gradcam, gradcam_pp
from mmgradcam.metrics import Localization, average_drop, increase, shown_only_of_clip, win
from mmgradcam.scenes.motion import MOTIONS, make_motion, render_motion
from mmgradcam.scenes.splits import seeds
from mmgradcam.task import Method, Task

BATCH = 16


def evaluate_motion(
    task: Task,
    limit: int = 1000,
    split: str = "test",
    *,
    method: Method | None = None,
    target_layers: Sequence[Any] | None = None,
    faithful: bool = True,
    progress: Callable[[Iterable[int], int], Iterable[int]] | None = None,
) -> dict[str, Any]:
    """Accuracy, where the maps of the motion peak in each frame, and whether the model still knows it by what they show.

    Args:
        task: a model of clips that knows `mmgradcam.scenes.motion.MOTIONS`.
        limit: number of clips.
        split: "validation" or "test".
        method: explain with this method instead of the model's own choice.
        target_layers: explain at these layers instead of the model's own choice.
        faithful: hold Grad-CAM++ against Grad-CAM at the features, which takes two more encodes and forwards a clip.
        progress: wraps the iteration over batches, given their number, to show how far it is.

    Returns:
        `accuracy`, over all and by motion; `localization`, over all frames of the true motion's map; `faithfulness`: of
        `gradcam` and `gradcam_pp`, `average_drop`, `increase_in_confidence` and `win_rate` against the other, 0..1.

    Raises:
        InputError: the task is of another kind.
    """
    if task.clip_length is None or set(MOTIONS) - set(task.labels):
        raise InputError(f"evaluate: expected a model of clips that knows rendered motions, got {task.name}")
    starts: Iterable[int] = range(0, limit, BATCH)
    starts = progress(starts, -(-limit // BATCH)) if progress else starts
    right: dict[str, list[bool]] = {kind: [] for kind in MOTIONS}
    place = Localization()
    whole: list[float] = []
    shown: dict[str, list[float]] = {"gradcam": [], "gradcam_pp": []}
    for at in starts:
        motions = [make_motion(seed, task.clip_length) for seed in seeds(split, min(BATCH, limit - at), at)]
        moving = [render_motion(motion) for motion in motions]
        clips = [one.clip for one in moving]
        each = [{"classes": [motion.kind]} for motion in motions]
        features = _features(task, clips)
        with torch.no_grad():
            predicted = task.targets_of_each(features, [{}] * len(clips))
        for motion, (likeliest, *_) in zip(motions, predicted, strict=True):
            right[motion.kind].append(likeliest.label == motion.kind)
        for one, made in zip(
            moving, explain(task, clips, each=each, method=method, target_layers=target_layers, batch=BATCH), strict=True
        ):
            for heat, mask in zip(made[0].heat(), one.masks, strict=True):
                place.add(heat, mask)
        if not faithful:
            continue
        whole += _probabilities(task, features, each)
        for name, rival in (("gradcam", gradcam), ("gradcam_pp", gradcam_pp)):
            maps = explain(task, clips, each=each, method=rival, target_layers=(), batch=BATCH)
            kept = [shown_only_of_clip(clip, made[0].heat()) for clip, made in zip(clips, maps, strict=True)]
            shown[name] += _probabilities(task, _features(task, kept), each)
    every = [hit for hits in right.values() for hit in hits]
    figures: dict[str, Any] = {
        "accuracy": {
            "all": float(np.mean(every)),
            **{k: float(np.mean(v)) for k, v in right.items() if v},
            "number": len(every),
        },
        "localization": {"motion": {k: v for k, v in place.figures().items() if not k.startswith("swap")}},
    }
    if faithful:
        figures["faithfulness"] = {
            name: {
                "average_drop": average_drop(whole, kept),
                "increase_in_confidence": increase(whole, kept),
                "win_rate": win(kept, shown["gradcam_pp" if name == "gradcam" else "gradcam"]),
            }
            for name, kept in shown.items()
        }
    return figures


@torch.no_grad()
def _features(task: Task, clips: Sequence[Clip]) -> torch.Tensor:
    prepared = [task.prepare(clip) for clip in clips]  # type: ignore[arg-type]  # a task of clips takes those
    return task.encode(torch.stack([one.pixels for one in prepared]).to(task.device))


@torch.no_grad()
def _probabilities(task: Task, features: torch.Tensor, each: Sequence[dict[str, Any]]) -> list[float]:
    """Of the class that each clip is asked for."""
    found = [target.probability for (target,) in task.targets_of_each(features, each)]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        raise InputError(f"evaluate: expected targets with a probability, got none of {task.name}; give its targets one")
    return known
