"""Clips: an encoder of 3D convolutions, and a head of one score per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.images.clips import Clip, open_clip
from mmgradcam.images.pictures import PreparedImage, Preprocess
from mmgradcam.task import Target, Task
from mmgradcam.tasks.classes import likelihood_of, scores_of, targets_of


class Video(Task):
    """A classifier of clips; maps are over time, height and width.

    Query: `classes=[...]` by index or label, else the `top` likeliest; `contrast=` explains why the first of them and not that
    one, by the difference of their scores.

    Args:
        encoder: (B, 3, T, h, w) -> (B, C, t, rows, columns).
        head: (B, C, t, rows, columns) -> (B, N) scores.
        labels: names of the N classes.
        fit: resizing and normalising of each frame.
        length: T, how many frames the model sees; they are taken from the clip at even distances.
    """

    unit = "logit"
    clip_length: int

    def __init__(self, encoder: nn.Module, head: nn.Module, labels: Sequence[str], fit: Preprocess, length: int = 16) -> None:
        self.encoder, self.head, self.labels, self.fit, self.clip_length = encoder, head, list(labels), fit, length

    def prepare(self, image: Any) -> PreparedImage:
        """The frames a model sees of a `Clip` as (3, T, h, w), and what of each it sees."""
        if not isinstance(image, Clip):
            raise InputError(f"{self.name} explains clips; give a Clip, such as mmgradcam.images.clips.open_clip('film.mp4')")
        return fitted(image, self.fit, self.clip_length)

    def encode(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(images)
        return features

    def targets(
        self,
        features: Tensor,
        classes: Sequence[int | str] | None = None,
        top: int | None = None,
        contrast: int | str | None = None,
    ) -> list[Target]:
        return targets_of(self.head(features)[0], self.labels, classes, top, contrast)

    def score(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return scores_of(self.head(features), targets)

    def log_prob(self, features: Tensor, targets: Sequence[Target]) -> Tensor:
        return likelihood_of(self.head(features), targets)


def fitted(clip: Clip, fit: Preprocess, length: int) -> PreparedImage:
    """A clip as (3, length, h, w), each frame resized and normalised."""
    frames = [fit(frame) for frame in open_clip(clip).sampled(length).frames]
    return PreparedImage(torch.stack([frame.pixels for frame in frames], 1), frames[0].box)
