"""How alike are two maps? Rank correlation and structural similarity, for maps of any grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.methods.cam import divided

Floats = npt.NDArray[np.float64]
WINDOW, SPREAD, K1, K2 = 11, 1.5, 0.01, 0.03


def spearman(one: Tensor, other: Tensor) -> Floats:
    """Spearman's rank correlation of each map with its fellow, ties averaged.

    Args:
        one: (K, *grid) maps.
        other: the same shape.

    Returns:
        (K,) in -1..1; 0 where a map is the same everywhere.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 30.0, 20.0]])).tolist()
    [0.5]
    """
    pairs = zip(ranks(_rows(one, other)), ranks(_rows(other, one)), strict=True)
    return np.array([correlation(a, b) for a, b in pairs])


def ssim(one: Tensor, other: Tensor) -> Floats:
    """Structural similarity of each map with its fellow, each scaled to 0..1 by its minimum and maximum first.

    A Gaussian window of 11 x 11 cells and deviation 1.5, within the map only (cut to the largest odd size that fits a smaller
    map), K1 = .01, K2 = .03. Maps of more than two dimensions are taken slice by slice.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.

    Args:
        one: (K, *grid) maps.
        other: the same shape.

    Returns:
        (K,) in -1..1.
    """
    from scipy.ndimage import gaussian_filter1d

    _rows(one, other)
    a, b = (_planes(_scaled(maps)).numpy() for maps in (one, other))
    radii = [min(WINDOW - 1, side - 1) // 2 for side in a.shape[-2:]]

    # Not skimage.metrics.structural_similarity: it takes one map at a time (15 times as long for 64 maps of 14 x 14) and one
    # window for both sides, of 7 cells or more unless told.
    def smoothed(x: Floats) -> Floats:
        for axis, radius in zip((-2, -1), radii, strict=True):
            x = gaussian_filter1d(x, SPREAD, axis=axis, radius=radius)
        return x[..., radii[0] : x.shape[-2] - radii[0], radii[1] : x.shape[-1] - radii[1]]

    mean_a, mean_b, shared = smoothed(a), smoothed(b), smoothed(a * b)
    both, spread = mean_a * mean_b, smoothed(a * a) + smoothed(b * b) - mean_a**2 - mean_b**2
    index = (2 * both + K1**2) * (2 * (shared - both) + K2**2) / ((mean_a**2 + mean_b**2 + K1**2) * (spread + K2**2))
    return np.asarray(index.mean((1, 2, 3)))


def to_grid(maps: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Maps (K, *grid) brought to another grid: each cell the mean over the cells it replaces, or repeated where it is finer.

    Raises:
        InputError: the grids are not both of height and width, and are not the same.
    """
    if tuple(maps.shape[1:]) == tuple(grid):
        return maps
    if maps.dim() != 3 or len(grid) != 2:
        raise InputError(f"expected maps over height and width, got grids {tuple(maps.shape[1:])} and {tuple(grid)}")
    return F.adaptive_avg_pool2d(maps.float(), grid)


def _rows(maps: Tensor, fellows: Tensor) -> Floats:
    if maps.dim() < 2 or maps.shape != fellows.shape:
        raise InputError(
            f"expected two stacks of maps (K, *grid) of one shape, got {tuple(maps.shape)} and {tuple(fellows.shape)}"
        )
    made: Floats = torch.nan_to_num(maps.detach().cpu().double()).flatten(1).numpy()
    return made


def ranks(values: Floats) -> Floats:
    """Ranks from 1 along the last axis, tied values sharing the mean of theirs; NaN where there is a NaN in it."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1))


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's correlation of two flat arrays, -1..1; 0.0 where one is the same everywhere."""
    if one.min() == one.max() or other.min() == other.max():
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    return float(np.clip(one @ other / np.sqrt((one @ one) * (other @ other)), -1, 1))


def _scaled(maps: Tensor) -> Tensor:
    flat = torch.nan_to_num(maps.detach().cpu().double()).flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return divided(flat - low, high - low).view(maps.shape)


def _planes(maps: Tensor) -> Tensor:
    """(K, *grid) -> (K, S, H, W)."""
    return maps[:, None, None] if maps.dim() == 2 else maps.reshape(len(maps), -1, *maps.shape[-2:])


def floats(values: Tensor) -> Floats:
    """A tensor as an array of float64."""
    return np.asarray(values.detach().cpu().double().numpy())
