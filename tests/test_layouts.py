"""Which shape a layer's output has: cells over the picture, channels last, or tokens."""

from __future__ import annotations

import pytest
import torch

from mmgradcam import InputError
from mmgradcam.layouts import alike, channels_last, of_picture, tokens, tokens_of

FITS = [  # rows and columns of the grid, height and width of the picture
    ((7, 7), (224, 224), True),
    ((1, 1), (224, 224), True),
    ((7, 768), (224, 224), False),
    ((768, 7), (224, 224), False),
    ((2, 4), (60, 100), True),  # cells of 32 pixels, the last ones padded
    ((1, 3), (60, 100), True),  # and cut
    ((4, 2), (60, 100), False),  # the picture lies
    ((2, 4), (100, 60), False),  # the picture stands
    ((8, 7), (224, 224), True),  # one row more is the padding of one cell
    ((9, 7), (224, 224), False),
    ((7, 8), (224, 224), True),
    ((7, 9), (224, 224), False),
    ((5, 1), (10, 4), True),  # at the limit: |5 * 4 - 1 * 10| = 10
    ((6, 1), (10, 4), False),
    ((5, 3), (10, 4), True),
    ((4, 3), (10, 4), False),
    ((8, 8), (8, 8), True),  # a cell a pixel
    ((9, 9), (8, 8), False),  # more cells than pixels
    ((0, 0), (8, 8), False),
    ((1, 0), (8, 8), False),
    ((0, 1), (8, 8), False),
]


@pytest.mark.parametrize(("grid", "picture", "expected"), FITS)
def test_a_grid_fits_a_picture_of_its_aspect_give_or_take_a_cell(
    grid: tuple[int, int], picture: tuple[int, int], expected: bool
) -> None:
    assert alike(grid, *picture) is expected


def test_what_a_layer_puts_out_over_a_picture_is_recognised_by_the_pictures_aspect() -> None:
    assert of_picture((1, 64, 4, 8), 64, 128) is None
    assert of_picture((1, 8, 4, 8), 64, 128) is None, "channels first where both readings would fit"
    assert of_picture((1, 4, 8, 64), 64, 128) is channels_last
    assert of_picture((1, 8, 4, 64), 64, 128) is None, "neither: the layer is taken at its word"
    assert of_picture((1, 64, 2, 4, 8), 64, 128) is None
    layout = of_picture((1, 33, 6), 64, 128)
    assert layout is not None
    assert layout(torch.arange(33.0)[None, :, None])[0, 0].tolist() == torch.arange(1.0, 33.0).view(4, 8).tolist()


@pytest.mark.parametrize(("count", "skip"), [(18, 0), (19, 1), (20, 2), (22, 4), (23, 5)])
def test_tokens_before_the_grid_are_left_out(count: int, skip: int) -> None:
    grid = tokens_of(count, 0.5)(torch.arange(float(count))[None, :, None])
    assert grid[0, 0].tolist() == torch.arange(float(skip), float(count)).view(3, 6).tolist()


def test_tokens_that_are_no_grid_of_the_picture_are_said() -> None:
    with pytest.raises(InputError, match=r"12 tokens are no grid of a picture 1 times as tall"):
        tokens_of(12, 1.0)
    for count, aspect in ((0, 1.0), (0, 2.0), (3, 1e-3), (15, 1.0)):
        with pytest.raises(InputError, match=f"^{count} tokens are no grid of a picture"):
            tokens_of(count, aspect)


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 2, 2), (5, 4, 3), (1, 4, 5)])
def test_what_is_not_so_many_tokens_is_said(shape: tuple[int, ...]) -> None:
    assert tokens((2, 2))(torch.zeros(1, 4, 3)).shape == (1, 3, 2, 2)
    with pytest.raises(InputError) as refusal:
        tokens((2, 2), skip=1)(torch.zeros(shape))
    assert str(refusal.value) == f"tokens(grid=(2, 2), skip=1): expected (B, 5, C) tokens, got {shape}"
