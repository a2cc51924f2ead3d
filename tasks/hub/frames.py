"""Classifiers of clips as torchvision has them, each frame prepared as their weights say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.images.clips import Clip
from mmgradcam.images.pictures import PreparedImage, TracedPreprocess
from mmgradcam.tasks.hub.tracing import last_grid
from mmgradcam.tasks.layer import Layer

LENGTH = 16
"""Frames that a model is shown, taken from the clip at even distances."""


class Frames:
    """A model's own preprocessing of clips.

    Args:
        transform: (T, 3, h, w) uint8 frames -> (3, T, h, w), each frame alike, such as torchvision's `weights.transforms()`.
        length: how many frames the model is shown.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], length: int = LENGTH) -> None:
        self.length = length
        self._frame = TracedPreprocess(lambda image: transform(_pixels(image)[None])[:, 0])

    def __call__(self, clip: Any) -> PreparedImage:
        """The frames as (3, T, h, w), and what of each frame the model sees."""
        if not isinstance(clip, Clip):
            raise InputError("this model sees clips; give a film, a folder of frames or a Clip: `mmgradcam video`")
        seen = [self._frame(frame) for frame in clip.sampled(self.length).frames]
        return PreparedImage(torch.stack([one.pixels for one in seen], 1), seen[0].box)

    def example(self) -> Clip:
        """A clip of noise."""
        noise = torch.randint(0, 256, (self.length, 128, 171, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return Clip(tuple(Image.fromarray(frame.numpy()) for frame in noise))


def _pixels(image: Image.Image) -> Tensor:
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3).permute(2, 0, 1)


def of_model(model: nn.Module, transform: Callable[[Tensor], Tensor], labels: Sequence[str] = ()) -> Layer:
    """A classifier of clips, its maps taken at the last layer with a grid over time, height and width."""
    model.eval()
    frames = Frames(transform)
    task = Layer(model, model, labels, frames)
    task.target_layers = (last_grid(model, frames(frames.example()).pixels),)
    return task
