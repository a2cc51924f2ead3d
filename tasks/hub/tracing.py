"""Where in a model nobody took apart a map can be had: the last layer that has a grid and that the scores depend on."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from mmgradcam.errors import InputError, ModelError
from mmgradcam.explaining.explain import explain
from mmgradcam.images.pictures import PreparedImage
from mmgradcam.layers import LayerOutput, Layout, TargetLayer, outputs_of
from mmgradcam.layouts import SKIPS, alike, channels_last, tokens
from mmgradcam.tasks.layer import Layer


def last_grid(model: nn.Module, pixels: Tensor, layer: str | None = None) -> TargetLayer:
    """The last block of a model that puts out a grid of more than one cell and whose cells the scores depend on.

    Found by running the model, never by its name: blocks are tried from the last to run. In a transformer that reads one
    class token, the patches that leave the last block change nothing, so the block before it is found.

    Args:
        model: maps (B, 3, h, w), or clips (B, 3, T, h, w), to scores.
        pixels: (3, h, w), a picture as the model sees it, or (3, T, h, w), a clip.
        layer: dotted name of the only layer to look at.

    Raises:
        InputError: no layer, or not this one, has such a grid.
    """
    device = next((p.device for p in model.parameters()), pixels.device)
    pixels = pixels.to(device)
    outputs = outputs_of(model, pixels[None])
    known = [name for name, _ in model.named_modules() if name]
    if layer is not None and layer not in known:
        near = difflib.get_close_matches(layer, known, n=5, cutoff=0.4) or known[:20]
        raise InputError(f"{type(model).__name__} has no layer {layer!r}; did you mean {', '.join(near)}?")
    for put in reversed(outputs):
        if put.name != layer if layer else next(put.module.children(), None) is None:
            continue
        for layout in _layouts(put, outputs, pixels, getattr(model, "num_prefix_tokens", None)):
            target_layer = TargetLayer(put.module, layout, put.name)
            if _reached(model, target_layer, pixels):
                return target_layer
    which = f"layer {layer} puts out no" if layer else "no layer puts out a"
    raise InputError(f"{type(model).__name__}: {which} grid of cells that the scores depend on")


def layer_of(task: Layer, name: str | None = None) -> TargetLayer:
    """`last_grid` of a task's model, for a picture, or a clip, of noise."""
    noise: Any = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    example = getattr(task.preparing, "example", lambda: noise)
    return last_grid(task.model, task.prepare(example()).pixels, name)


def _layouts(put: LayerOutput, outputs: list[LayerOutput], pixels: Tensor, prefix: int | None) -> Iterator[Layout | None]:
    """Layouts that make a grid of the picture's aspect of what a layer put out; `prefix` tokens stand before it, if known."""
    height, width = pixels.shape[-2:]
    shape = put.shape
    if pixels.dim() == 4:
        if len(shape) == 5 and shape[3] * shape[4] > 1 and alike(shape[3:], height, width):
            yield None
        elif len(shape) == 5 and shape[2] * shape[3] > 1 and alike(shape[2:4], height, width):
            yield channels_last
    elif len(shape) == 4 and shape[2] * shape[3] > 1 and alike(shape[2:], height, width):
        yield None
    elif len(shape) == 4 and shape[1] * shape[2] > 1 and alike(shape[1:3], height, width):
        yield channels_last
    elif len(shape) == 3:
        grids = {tuple(other.shape[2:]) for other in outputs if len(other.shape) == 4 and alike(other.shape[2:], height, width)}
        coarser = [(-(-rows // d), -(-columns // d)) for d in (1, 2, 4, 8, 16, 32) for rows, columns in sorted(grids)]
        for skip in SKIPS if prefix is None else dict.fromkeys((prefix, *SKIPS)):
            for grid in coarser:
                if math.prod(grid) == shape[1] - skip > 1:
                    yield tokens(grid, skip)
                    return


def _reached(model: nn.Module, target_layer: TargetLayer, pixels: Tensor) -> bool:
    """Whether the likeliest class depends on what the layer put out, in more than one cell."""
    task = Layer(
        model, target_layer.module, layout=target_layer.layout, prepare=lambda _: PreparedImage(pixels, (0.0, 0.0, 1.0, 1.0))
    )
    try:
        found = explain(task, Image.new("RGB", (8, 8)), method=lambda features, gradients: gradients.abs().sum(1))
    except ModelError:
        return False
    return int((found.map != 0).sum()) > 1
