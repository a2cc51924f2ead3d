"""Tokens to a grid and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmgradcam.errors import InputError

SKIPS = (0, 1, 2, 4, 5)
"""Tokens that may stand before a grid's: none, a class token, that and one of distillation, four registers, five with both."""


def tokens(grid: Sequence[int], skip: int = 0) -> Callable[[Tensor], Tensor]:
    """A layout for layers that put out tokens: (B, skip + cells, C) -> (B, C, *grid).

    Args:
        grid: cells along each axis, row by row, as (14, 14).
        skip: tokens before the grid's, such as a class token.

    >>> import torch
    >>> tokens((2, 3), skip=1)(torch.zeros(5, 7, 8)).shape
    torch.Size([5, 8, 2, 3])
    """
    grid = tuple(grid)

    def layout(tensor: Tensor) -> Tensor:
        if tensor.dim() != 3 or tensor.shape[1] != skip + math.prod(grid):
            raise InputError(
                f"tokens(grid={grid}, skip={skip}): expected (B, {skip + math.prod(grid)}, C) tokens, got {tuple(tensor.shape)}"
            )
        return torch.unflatten(tensor[:, skip:].transpose(1, 2), 2, grid)

    return layout


def tokens_of(count: int, aspect: float) -> Callable[[Tensor], Tensor]:
    """The layout of `count` tokens that are a grid of a picture's aspect, or that after a token or a few.

    Args:
        count: tokens.
        aspect: height over width.

    Raises:
        InputError: there is no such grid.

    >>> import torch
    >>> tokens_of(197, 1.0)(torch.zeros(5, 197, 8)).shape
    torch.Size([5, 8, 14, 14])
    """
    for skip in (some for some in SKIPS if some < count):
        columns = round(math.sqrt((count - skip) / aspect))
        rows = round(columns * aspect)
        if rows * columns == count - skip:
            return tokens((rows, columns), skip)
    raise InputError(
        f"{count} tokens are no grid of a picture {aspect:.3g} times as tall as it is wide; "
        "give a layout, such as mmgradcam.layouts.tokens((14, 14), skip=1)"
    )


def alike(grid: Sequence[int], height: int, width: int) -> bool:
    """Whether cells of this grid on a picture of this size are as tall as wide, give or take the padding of one cell.

    >>> alike((7, 7), 224, 224), alike((7, 768), 224, 224)
    (True, False)
    """
    rows, columns = grid
    return 1 <= rows <= height and 1 <= columns <= width and abs(rows * width - columns * height) <= max(height, width)


def of_picture(shape: Sequence[int], height: int, width: int) -> Callable[[Tensor], Tensor] | None:
    """The layout that makes a grid over a picture of what a layer puts out; None where it is (B, C, rows, columns) already.

    Args:
        shape: of what the layer puts out.
        height: of the picture as the model sees it.
        width: likewise.

    Raises:
        InputError: tokens that are no grid of the picture's aspect.
    """
    if len(shape) == 3:
        return tokens_of(shape[1], height / width)
    if len(shape) == 4 and not alike(shape[2:], height, width) and alike(shape[1:3], height, width):
        return channels_last
    return None


def channels_last(tensor: Tensor) -> Tensor:
    """A layout for layers that put out (B, *grid, C), as Swin's do: -> (B, C, *grid)."""
    return tensor.movedim(-1, 1)
