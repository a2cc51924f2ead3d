"""What a trial of a task needs: pictures made up for it, what two results have in common, and what a model was like before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from mmgradcam.images.clips import Clip
from mmgradcam.task import Task

CLOSE, CLOSE_HALF = 1e-4, 2e-2
"""How far apart, relative to their size, two results may be that should be the same; of half precision."""
SIDE = 224
"""Of the pictures made up here."""


def example_picture() -> Image.Image:
    """A picture with something everywhere: smooth noise of three sizes."""
    rng, made = np.random.default_rng(0), np.zeros((SIDE, SIDE, 3))
    for side in (4, 16, 56):
        patch = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        made += np.asarray(patch.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float)
    return Image.fromarray((made / 3).astype(np.uint8))


def example_of(task: Task) -> Image.Image | Clip:
    """What a task is tried on when nothing is given: a picture that is made up, or a clip of it that moves to the right."""
    if task.clip_length is None:
        return example_picture()
    picture = np.asarray(example_picture())
    return Clip(tuple(Image.fromarray(np.roll(picture, 4 * n, axis=1)) for n in range(task.clip_length)))


def lit(corner: tuple[int, int] | None = None) -> Image.Image:
    """An empty picture, or one with noise in the corner (x, y), each 0 or 1."""
    picture, part = Image.new("RGB", (SIDE, SIDE), (110, 110, 110)), SIDE // 4
    if corner is not None:
        noise = np.random.default_rng(0).integers(0, 256, (part, part, 3), dtype=np.uint8)
        picture.paste(Image.fromarray(noise), (corner[0] * (SIDE - part), corner[1] * (SIDE - part)))
    return picture


def alike(one: Tensor, other: Tensor, strictly: float = 1.0) -> bool:
    """Whether two tensors are the same up to rounding, or to a part of it."""
    if one.shape != other.shape:
        return False
    close = strictly * (CLOSE if one.dtype.itemsize > 2 else CLOSE_HALF)
    one, other = one.double(), other.double()
    scale = max(float(one.abs().max()), float(other.abs().max()), 1e-30) if one.numel() else 1.0
    return one.numel() == 0 or float((one - other).abs().max()) <= close * scale


def learns(module: nn.Module) -> bool:
    """Whether it is a layer with parameters of its own."""
    return next(module.children(), None) is None and next(module.parameters(), None) is not None


def state_of(task: Task) -> dict[str, Any]:
    """What must be the same of a task's modules after as before, by a name people know it by."""
    made: dict[str, Any] = {}
    names = {id(value): name for name, value in vars(task).items()}
    for n, root in enumerate(task.modules()):
        own = names.get(id(root), str(n))
        for name, tensor in (*root.named_parameters(), *root.named_buffers()):
            made[f"{own}.{name}"] = (tensor._version, tensor.data_ptr(), tensor.requires_grad, tensor.grad is None)
        for name, module in root.named_modules():
            hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
            called = f"{own}.{name}".rstrip(".")
            made[f"the mode of {called}"] = module.training
            made[f"the hooks of {called}"] = tuple(map(len, hooks))
    return made


def kind_of(made: Any) -> str:
    """What something is, for a message."""
    return f"a tensor {tuple(made.shape)} of {made.dtype}" if isinstance(made, Tensor) else type(made).__name__


def times_of(sizes: Sequence[int]) -> str:
    """Sizes for a message: "14 x 14"."""
    return " x ".join(map(str, sizes))
