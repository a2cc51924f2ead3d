"""A picture as the user knows it and as the model sees it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.images.clips import Clip, open_clip
from mmgradcam.images.pictures import Box, open_picture
from mmgradcam.task import Task
from mmgradcam.utils.files import name_of


@dataclass(frozen=True)
class ModelInput:
    """A picture as the user knows it and as the model sees it.

    Attributes:
        picture: RGB; of a clip, its middle frame.
        name: its file's.
        pixels: (3, h, w) or whatever the task's `prepare` makes.
        box: the rectangle of the picture that the pixels show, in fractions; of tiles, one each.
        prepared: the user gave the pixels, not the picture.
        size: width and height, where the model's prompt depends on them.
        clip: where the user gave one.
    """

    picture: Image.Image
    name: str
    pixels: Tensor
    box: Box | tuple[Box, ...]
    prepared: bool = False
    size: tuple[int, int] | None = None
    clip: Clip | None = None


def model_input_of(task: Task, source: Any) -> ModelInput:
    """Opens a picture and prepares it for the model.

    Args:
        task: whose `prepare`.
        source: as for `explain`.

    Raises:
        InputError: it cannot be used.
    """
    if isinstance(source, Tensor):
        if source.dim() != 3 or source.shape[0] not in (1, 3) or not source.is_floating_point():
            raise InputError(f"expected a prepared tensor (3, h, w) of floats, got {tuple(source.shape)} of {source.dtype}")
        if not torch.isfinite(source).all():
            raise InputError("the tensor holds values that are not finite")
        return ModelInput(_picture_of(source), "", source.detach(), (0.0, 0.0, 1.0, 1.0), prepared=True)
    if task.clip_length is not None and isinstance(source, (str, os.PathLike)):
        source = open_clip(source)
    if isinstance(source, Clip):
        with task.exclusive():
            seen = task.prepare(source)  # type: ignore[arg-type]  # a task of clips takes those
        return ModelInput(source.frames[len(source) // 2], source.name, seen.pixels, seen.box, clip=source)
    picture = open_picture(source)
    with task.exclusive():  # a processor's tokenizer, for one, cannot be used by two threads at a time
        prepared = task.prepare(picture)
    return ModelInput(
        picture,
        name_of(source) if isinstance(source, (str, os.PathLike)) else "",
        prepared.pixels,
        prepared.box,
        size=prepared.size,
    )


def _picture_of(pixels: Tensor) -> Image.Image:
    """A prepared tensor as a picture to draw on: its range stretched to 0..255."""
    values = pixels.detach().float().cpu().expand(3, -1, -1)
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low if high > low else 1) * 255
    return Image.fromarray(scaled.round().byte().permute(1, 2, 0).numpy())


def baseline_input(task: Task, view: ModelInput, level: int = 128) -> Tensor:
    """What the model sees when there is nothing to see: one grey in place of the picture, or of every frame.

    Where the pixels do not come from the picture (the user prepared them, or the task looks at an observation of its own, so
    that they are the same for two greys), it is their mean color.

    Args:
        task: whose `prepare`.
        view: the picture.
        level: of the grey, 0..255.

    Returns:
        Pixels of the view's shape.
    """
    if not view.prepared:
        pixels = _prepared_grey(task, view, level)
        if not torch.equal(pixels, view.pixels) or not torch.equal(pixels, _prepared_grey(task, view, (level + 128) % 256)):
            return pixels
    return view.pixels.mean((-2, -1), keepdim=True).expand_as(view.pixels)


def _prepared_grey(task: Task, view: ModelInput, level: int) -> Tensor:
    """What the model sees of one grey in place of the view's picture, padding and normalisation included."""
    grey: Any = Image.new("L", view.picture.size, level).convert("RGB")
    return model_input_of(task, replace(view.clip, frames=(grey,) * len(view.clip)) if view.clip else grey).pixels
