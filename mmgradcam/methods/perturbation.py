"""Methods that score the picture again and again, changed: noisy, masked, or with features taken away.

All take a `Probe`; give them other settings by name, "rise(count=4000)", or as functools.partial(rise, count=4000). What is
random is seeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.methods.cam import divided
from mmgradcam.probe import AskingMethod, Drawn, Probe, asks
from mmgradcam.task import Method
from mmgradcam.utils.naming import name_of

__all__ = ["ablation_cam", "occlusion", "rise", "score_cam", "smooth", "smooth_gradcam_pp"]

COUNT, SIGMA = 25, 0.15
MOST_NOISE, MOST_MASKS = 2**33, 10**6
"""Bytes of noisy copies, and masks, that one explanation may take."""


def noisy(pixels: Tensor, count: int, sigma: float, seed: int) -> Tensor:
    """Copies of a picture with Gaussian noise.

    Args:
        pixels: (1, 3, h, w).
        count: number of copies.
        sigma: standard deviation, as a share of the picture's range (its maximum minus its minimum).
        seed: of the noise.

    Returns:
        (count, 3, h, w).

    Raises:
        InputError: fewer than 2 copies or more than 8 GiB of them, or a negative sigma.
    """
    if count < 2 or sigma < 0:
        raise InputError(f"expected at least 2 copies and sigma >= 0, got {count} and {sigma}")
    if count > (most := MOST_NOISE // (4 * pixels.numel())):
        raise InputError(
            f"expected at most {most:,} noisy copies of a picture of this size, got {count:,}; 25 to 100 are usual"
        )
    draw = _seeded(seed)
    noise = torch.randn(count, *pixels.shape[1:], generator=draw, dtype=torch.float32).to(pixels)
    return pixels + sigma * (pixels.max() - pixels.min()) * noise


def _seeded(seed: int) -> torch.Generator:
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: expected a whole number in 0..{2**63 - 1}, got {seed}")
    return torch.Generator().manual_seed(seed)


def smooth(method: Method | AskingMethod, count: int = COUNT, sigma: float = SIGMA, seed: int = 0) -> AskingMethod:
    """SmoothGrad of any method: the mean of its maps over noisy copies of the picture, with their standard deviation.

    Source: Smilkov et al., "SmoothGrad", 2017.

    Args:
        method: what to smooth.
        count: noisy copies, 2 or more; each is encoded once.
        sigma: standard deviation of the noise, as a share of the picture's range.
        seed: of the noise.

    Returns:
        A method that gives (K, *grid) means and standard deviations.
    """

    def smoothed(probe: Probe, seed: int = seed) -> Drawn:
        copies = noisy(probe.pixels, count, sigma, seed)
        return _mean_and_deviation(_maps(probe, method, copies), len(probe.targets), count)

    defaults = {"count": (count, COUNT), "sigma": (sigma, SIGMA), "seed": (seed, 0)}
    settings = [f"{name}={value!r}" for name, (value, usual) in defaults.items() if value != usual]
    smoothed.__name__ = f"smooth({', '.join([name_of(method), *settings])})"
    return smoothed


Rows = Sequence[tuple[int, int]]


def _maps(probe: Probe, method: Method | AskingMethod, copies: Tensor) -> Iterator[tuple[Rows, Tensor]]:
    if not asks(method):
        yield from probe.draw(method, copies)  # type: ignore[arg-type]
        return
    for n in range(len(copies)):
        drawn = method(probe.at(copies[n : n + 1]))  # type: ignore[call-arg, arg-type]
        yield [(n, t) for t in range(len(probe.targets))], drawn[0] if isinstance(drawn, tuple) else drawn


def _mean_and_deviation(parts: Iterator[tuple[Rows, Tensor]], targets: int, count: int) -> tuple[Tensor, Tensor]:
    """Over N maps of each of K targets: (K, *grid) means and standard deviations (of the N, not of their mean)."""
    done: set[tuple[int, int]] = set()
    total = square = torch.empty(0)
    for rows, maps in parts:
        if not done:
            total = maps.new_zeros(targets, *maps.shape[1:], dtype=torch.float64)
            square = torch.zeros_like(total)
        new = [i for i, row in enumerate(rows) if row not in done]
        done.update(rows)
        index = torch.tensor([rows[i][1] for i in new], device=maps.device)
        values = maps[new].double()
        total.index_add_(0, index, values)
        square.index_add_(0, index, values.square())
    mean = total / count
    deviation = ((square - count * mean.square()) / (count - 1)).clamp(min=0).sqrt()
    return mean.float(), deviation.float()


def smooth_gradcam_pp(
    probe: Probe,
    count: int = COUNT,
    sigma: float = SIGMA,
    seed: int = 0,
    maps: Sequence[int] | None = None,
    neurons: Tensor | Sequence[Any] | None = None,
) -> Drawn:
    """Smooth Grad-CAM++: the first three powers of the gradient, averaged over noisy copies, in the Grad-CAM++ rule.

    relu(sum_k w_k A_k), w_k = sum_ij alpha relu(D1), alpha = D2 / (2 D2 + (sum_ab A_ab) D3), where Dp is the mean over copies
    of G^p and A the features of the picture itself.

    Source: Omeiza et al., "Smooth Grad-CAM++", 2019, equations 8 to 10.

    Args:
        probe: the picture and its targets.
        count: noisy copies, 2 or more.
        sigma: standard deviation of the noise, as a share of the picture's range.
        seed: of the noise.
        maps: visualize these feature maps (channels) only.
        neurons: (*grid) bool, a tensor or nested lists: visualize these cells of the feature maps only.

    Returns:
        (K, *grid), >= 0, and the standard deviation of the maps that each copy gives alone.

    Raises:
        InputError: some feature is negative; no such feature map; neurons of another shape.
    """
    _nonnegative(probe.activations)
    copies = noisy(probe.pixels, count, sigma, seed)
    sums: list[Tensor] = []

    def rule(a: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        cells, kept = tuple(range(2, a.dim())), _subset(a, maps, neurons)
        alpha = divided(second, 2 * second + a.sum(cells, keepdim=True) * third)
        weights = (alpha * torch.relu(first) * kept).sum(cells, keepdim=True)
        return torch.relu((weights * a * kept).sum(1))

    def parts() -> Iterator[tuple[Rows, Tensor]]:
        seen: set[tuple[int, int]] = set()
        for part in probe.gradients_of(copies):
            if not sums:
                sums.extend(a.new_zeros(3, len(probe.targets), *a.shape[1:]) for a, _ in part.activations)
            new = [i for i, row in enumerate(part.rows) if row not in seen]
            seen.update(part.rows)
            for (_, g), powers in zip(part.activations, sums, strict=True):
                index = torch.tensor([part.rows[i][1] for i in new], device=g.device)
                for p in range(3):
                    powers[p].index_add_(0, index, g[new].pow(p + 1))
            yield part.rows, probe.fused([rule(a, g, g.square(), g.pow(3)) for a, g in part.activations])

    _, deviation = _mean_and_deviation(parts(), len(probe.targets), count)
    return probe.fused([rule(a, *(powers / count)) for a, powers in zip(probe.activations, sums, strict=True)]), deviation


def _nonnegative(activations: Sequence[Tensor]) -> None:
    low = min(float(a.min()) for a in activations)
    if low < 0:
        raise InputError(
            f"smooth_gradcam_pp: expected features >= 0, as after a ReLU, got a minimum of {low:.3g}; "
            "use smooth(gradcam), smooth(hirescam) or smooth(layercam) on these features"
        )


def _subset(features: Tensor, maps: Sequence[int] | None, neurons: Tensor | Sequence[Any] | None) -> Tensor:
    """(1, C, *grid) 1 where a neuron is visualized."""
    kept = torch.ones_like(features)
    if maps is not None:
        if not maps or not all(0 <= k < features.shape[1] for k in maps):
            raise InputError(f"maps: expected feature maps in 0..{features.shape[1] - 1}, got {list(maps)}")
        kept[:, [k for k in range(features.shape[1]) if k not in set(maps)]] = 0
    if neurons is not None:
        try:
            mask = torch.as_tensor(neurons)
        except (TypeError, ValueError) as error:
            raise InputError(f"neurons: expected a mask of shape {tuple(features.shape[2:])}; {error}") from None
        if tuple(mask.shape) != tuple(features.shape[2:]):
            raise InputError(f"neurons: expected a mask of shape {tuple(features.shape[2:])}, got {tuple(mask.shape)}")
        kept = kept * mask.to(features)
    return kept


def score_cam(probe: Probe) -> Tensor:
    """Score-CAM: relu(sum_k a_k A_k), a = softmax over k of the score of the picture times feature map k.

    Each feature map is brought to the picture's size and scaled to 0..1; one that is the same everywhere weighs 0. The score
    of a blank picture, which the paper subtracts, cancels in the softmax. Costs an encode per channel.

    Source: Wang et al., "Score-CAM", CVPR Workshops 2020, algorithm 1.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, *grid), >= 0.
    """
    drawn = []
    for a in probe.activations:
        if a.dim() != 4:
            raise InputError(f"score_cam: expected features over height and width, got a grid of {a.dim() - 2} dimensions")
        channels = a.squeeze(0)
        low, high = channels.amin((1, 2)), channels.amax((1, 2))
        useful = (high > low).nonzero().flatten()
        weights = channels.new_zeros(len(probe.targets), len(channels))
        found = []
        for at in range(0, len(useful), probe.batch):
            some = useful[at : at + probe.batch]
            scaled = (channels[some] - low[some, None, None]) / (high - low)[some, None, None]
            masks = F.interpolate(scaled[:, None], size=probe.side, mode="bilinear", align_corners=False)
            found.append(probe.score(probe.pixels * masks.to(probe.pixels)))
        if found:
            weights[:, useful] = torch.cat(found).softmax(0).T.to(weights)
        drawn.append(torch.relu(torch.einsum("kc,chw->khw", weights, channels)))
    return probe.fused(drawn)


def ablation_cam(probe: Probe) -> Tensor:
    """Ablation-CAM: relu(sum_k w_k A_k), w_k = (y - y_k) / |y|, y_k the score with feature map k set to 0.

    The paper divides by y, taken to be positive; |y| lets log-probabilities work. At the feature layer the encoder does not run
    again.

    Source: Ramaswamy and Desai, "Ablation-CAM", WACV 2020, equation 2.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, *grid), >= 0.
    """
    y, drawn = probe.base(), []
    for place, a in enumerate(probe.activations):
        count, drops = a.shape[1], []
        for at in range(0, count, probe.batch):
            some = torch.arange(at, min(at + probe.batch, count), device=a.device)
            changed = a.repeat(len(some), *[1] * (a.dim() - 1))
            changed[torch.arange(len(some)), some] = 0
            drops.append(y - probe.score_changed(place, changed))
        weights = divided(torch.cat(drops), y.abs().expand(count, -1))
        drawn.append(torch.relu(torch.einsum("ck,c...->k...", weights.to(a), a.squeeze(0))))
    return probe.fused(drawn)


def occlusion(probe: Probe, size: int | None = None, stride: int | None = None, value: float = 0.0) -> Tensor:
    """Occlusion: how much the score drops when a square of the picture is covered; each pixel, the mean over squares on it.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.

    Args:
        probe: the picture and its targets.
        size: side of the square in the model's pixels; by default a seventh of the longer side, at most the shorter side.
        stride: pixels between squares; by default half a square.
        value: what the square is filled with, in the model's normalized pixels; 0 is the mean grey of a normalized picture.

    Returns:
        (K, h, w) at the size of the model's pixels; negative where covering helps.

    Raises:
        InputError: size or stride below 1, or a square larger than the picture.
    """
    h, w = probe.side
    size = max(1, min(h, w, round(max(h, w) / 7))) if size is None else size
    stride = max(1, size // 2) if stride is None else stride
    if not (stride >= 1 and 1 <= size <= min(h, w)):
        raise InputError(f"occlusion: expected size in 1..{min(h, w)} and stride >= 1, got {size} and {stride}")
    corners = [(y, x) for y in _starts(h, size, stride) for x in _starts(w, size, stride)]
    base = probe.base()
    drops, covered = probe.pixels.new_zeros(len(base), h, w, dtype=torch.float32), torch.zeros(h, w, device=base.device)
    for at in range(0, len(corners), probe.batch):
        some = corners[at : at + probe.batch]
        pictures = probe.pixels.repeat(len(some), 1, 1, 1)
        for picture, (y, x) in zip(pictures, some, strict=True):
            picture[:, y : y + size, x : x + size] = value
        for drop, (y, x) in zip(base - probe.score(pictures), some, strict=True):
            drops[:, y : y + size, x : x + size] += drop[:, None, None]
            covered[y : y + size, x : x + size] += 1
    return drops / covered.clamp(min=1)


def _starts(length: int, size: int, stride: int) -> list[int]:
    return sorted({*range(0, length - size + 1, stride), length - size})


def rise(probe: Probe, count: int = 1000, cells: int = 7, share: float = 0.5, seed: int = 0, centred: bool = True) -> Drawn:
    """RISE: sum over random masks of score times mask, divided by the number of masks and the share that is kept.

    Masks are grids of `cells` x `cells` zeros and ones, enlarged smoothly and shifted. Centred, the mean score over the masks
    is subtracted first: in expectation that takes the same constant from every pixel, and it lets scores of either sign
    (logits, log-probabilities) work, where the paper has probabilities.

    Source: Petsiuk et al., "RISE", BMVC 2018, equation 6; 4,000 to 8,000 masks there.

    Args:
        probe: the picture and its targets.
        count: masks, 2 or more; each costs an encode.
        cells: cells of a mask along each side.
        share: of the cells that are kept, in 0..1.
        seed: of the masks.
        centred: subtract the mean score.

    Returns:
        (K, h, w) at the size of the model's pixels, and the standard error of each pixel.

    Raises:
        InputError: settings out of range.
    """
    h, w = probe.side
    if not (2 <= count <= MOST_MASKS and 1 <= cells <= max(h, w) and 0 < share < 1):
        wanted = f"count in 2..{MOST_MASKS:,}, cells in 1..{max(h, w)} and share in 0..1"
        raise InputError(f"rise: expected {wanted}, got {count:,}, {cells} and {share}")
    masked = (probe.pixels * m[:, None] for m in random_masks(probe.pixels, count, cells, share, seed, probe.batch))
    scores = torch.cat([probe.score(pictures) for pictures in masked])
    weights = (scores - scores.mean(0)) if centred else scores
    total = torch.zeros(len(probe.targets), h, w, dtype=torch.float64, device=scores.device)
    square, at = torch.zeros_like(total), 0
    for masks in random_masks(probe.pixels, count, cells, share, seed, probe.batch):
        part = weights[at : at + len(masks)].double()
        total += torch.einsum("nk,nhw->khw", part, masks.double())
        square += torch.einsum("nk,nhw->khw", part.square(), masks.double().square())
        at += len(masks)
    mean = total / count
    error = ((square / count - mean.square()).clamp(min=0) / count).sqrt()
    return (mean / share).float(), (error / share).float()


def random_masks(pixels: Tensor, count: int, cells: int, share: float, seed: int, batch: int) -> Iterator[Tensor]:
    """RISE's masks, `batch` at a time: (n, h, w) in 0..1."""
    h, w = pixels.shape[2:]
    draw = _seeded(seed)
    high, wide = -(-h // cells), -(-w // cells)
    grids = (torch.rand(count, 1, cells, cells, generator=draw) < share).float()
    ys, xs = (torch.randint(0, side, (count,), generator=draw).tolist() for side in (high, wide))
    size = ((cells + 1) * high, (cells + 1) * wide)
    for at in range(0, count, batch):
        large = F.interpolate(grids[at : at + batch], size=size, mode="bilinear", align_corners=False).squeeze(1)
        corners = zip(large, ys[at : at + batch], xs[at : at + batch], strict=True)
        yield torch.stack([m[y : y + h, x : x + w] for m, y, x in corners]).to(pixels)
