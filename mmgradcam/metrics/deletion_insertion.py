"""Does the score rest on what the map shows? Parts of the picture are hidden by the map's order, and the model asked again.

All of these are on the task's own score: a word's log-probability or logit, an answer's logit, an action's value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.methods import occlusion
from mmgradcam.metrics.agreement import rank_correlation
from mmgradcam.metrics.imputation import impute
from mmgradcam.metrics.perturbations import Change, Explained, Seen, Variants, fill_black, fill_blur, fill_mean, variants_of

SHARES = tuple(i / 10 for i in range(11))
"""Shares of the picture's pixels, and quantiles of its heat, at which curves are taken."""


def deletion(explained: Explained, change: Change = fill_mean, shares: Sequence[float] = SHARES) -> Tensor:
    """Area under the score while the hottest pixels are taken away: the lower, the more the score rests on them.

    Source: Petsiuk et al., "RISE", BMVC 2018, section 4.3, on the probability there; on the task's own score here. captum has
    it not; Quantus' PixelFlipping takes the same curve unintegrated by default.

    Args:
        explained: explanations, or `Variants`.
        change: what becomes of pixels taken away.
        shares: of pixels taken away, in 0..1, ascending.

    Returns:
        (R,) in units of the score: its mean along the way, by the trapezoid rule.
    """
    variants = variants_of(explained)
    return _area(_curve(variants, change, [1 - share for share in shares], hottest=False), shares)


def insertion(explained: Explained, change: Change = fill_blur, shares: Sequence[float] = SHARES) -> Tensor:
    """Area under the score while the hottest pixels are put into a blurred picture: the higher, the sooner the score is there.

    Source: as of `deletion`.

    Args:
        explained: explanations, or `Variants`.
        change: what stands where nothing is put yet.
        shares: of pixels put in, in 0..1, ascending.

    Returns:
        (R,) in units of the score: its mean along the way, by the trapezoid rule.
    """
    return _area(_curve(variants_of(explained), change, shares, hottest=True), shares)


def road(explained: Explained, shares: Sequence[float] = (0.2, 0.4, 0.6, 0.8)) -> Tensor:
    """ROAD: the score without the least relevant pixels, less that without the most relevant; halved, mean over shares.

    Removed pixels become the weighted mean of their neighbours (the paper's linear system, solved: see
    `mmgradcam.metrics.imputation`), with a little noise, so that the shape of the mask itself gives nothing away.
    pytorch-grad-cam's ROADCombined is this with the shares 0.1 to 0.9 and its own cut at a percentile.

    Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022.

    Args:
        explained: explanations, or `Variants`.
        shares: of pixels removed, in 0..1.

    Returns:
        (R,) in units of the score: the higher, the better the map's order.
    """
    variants = variants_of(explained)
    relevant_gone = _curve(variants, imputed, [1 - share for share in shares], hottest=False)
    rest_gone = _curve(variants, imputed, [1 - share for share in shares], hottest=True)
    return (rest_gone - relevant_gone).mean(1) / 2


def shown(explained: Explained, change: Change = fill_black) -> tuple[Tensor, Tensor]:
    """The confidence on the picture, and on the picture times the heat: Y and O of average drop, increase and win.

    Source: Chattopadhyay et al. 2018, section 4.1.

    Args:
        explained: explanations, or `Variants`, of a task that has probabilities.
        change: what stands where there is no heat; black in the paper.

    Returns:
        Probabilities (R,) and (R,).

    Raises:
        InputError: a target has none, as a contrast.
        ModelError: the task has no probabilities.
    """
    variants = variants_of(explained)
    heats = [variants.heat(row) for row in range(len(variants))]
    both = [*((row, torch.ones_like(heat)) for row, heat in enumerate(heats)), *enumerate(heats)]
    told = _probable(variants.ask(both, change, likely=True)).exp()
    return told[: len(variants)], told[len(variants) :]


def confidence_vs_area(
    explained: Explained, quantiles: Sequence[float] = SHARES, change: Change = fill_black
) -> tuple[Tensor, Tensor]:
    """How much of the picture the map needs: what it keeps above each of its quantiles, and the confidence that leaves.

    Of equal values as many are kept as the quantile leaves, in a random order that is the same for all maps: else a map that is
    0 over half the picture would keep all of it at every quantile up to a half.

    Source: Chattopadhyay et al. 2018, section 4.1: relative confidence against the area that is kept.

    Args:
        explained: explanations, or `Variants`, of a task that has probabilities.
        quantiles: of the heat, in 0..1; at 0 all is kept.
        change: what becomes of the rest.

    Returns:
        Shares of the area (R, Q) that are kept, and (R, Q) confidences over that on the whole picture.

    Raises:
        InputError: a target has none, as a contrast.
        ModelError: the task has no probabilities.
    """
    variants = variants_of(explained)
    areas = torch.empty(len(variants), len(quantiles))

    def asked() -> Iterator[tuple[int, Tensor]]:
        for row in range(len(variants)):
            rank = _ranks(variants.heat(row))
            yield row, torch.ones(rank.shape)
            for q, quantile in enumerate(quantiles):
                mask = (rank < rank.numel() - math.ceil(round(quantile * (rank.numel() - 1), 6))).float()
                areas[row, q] = mask.mean()
                yield row, mask

    told = _probable(variants.ask(asked(), change, likely=True)).view(len(variants), -1)
    return areas, (told[:, 1:] - told[:, :1]).exp()


def occlusion_correlation(explained: Explained, size: int | None = None) -> Tensor:
    """Rank correlation of each map with the occlusion map of its target: how the score falls, or rises, when a patch is greyed.

    Source: Selvaraju et al. 2017, section 5.2 and appendix; .254 for Grad-CAM on VOC 2007.

    Args:
        explained: explanations, or `Variants`.
        size: of the patch in pixels of the model's picture; by default a seventh of its shorter side.

    Returns:
        (R,) in -1..1; of 14 x 14 cells of the map's positive part and of the score's change, of either sign.
    """
    variants = variants_of(explained)
    found: list[float] = []
    known: dict[tuple[int, tuple[int, ...]], list[Tensor]] = {}
    for e, one in enumerate(variants.explanations):
        seen = variants.seen[e]
        key = (id(seen), tuple(id(target) for target in one.targets))
        if key not in known:
            side = size or max(2, min(seen.shape[-2:]) // 7)
            occluded = one.with_method(partial(occlusion, size=side, stride=max(1, side // 2)))
            known[key] = list(occluded.maps)
        for k, other in enumerate(known[key]):
            heat = variants.heat(variants.rows.index((e, k)))
            found.append(rank_correlation(heat.numpy(), other.numpy()))
    return torch.tensor(found)


def imputed(seen: Seen, mask: Tensor) -> Tensor:
    """What is not kept becomes the weighted mean of its neighbours, which may themselves be unknown, and a little noise.

    The linear system of ROAD solved to `mmgradcam.metrics.imputation.TOLERANCE`, of each tile or frame on its own; one of
    which nothing is kept becomes middle grey. The noise has 1% of the pixels' standard deviation.
    """
    pixels, known = seen.pixels.float().cpu(), mask > 0.5
    of_frames = pixels if seen.tiled else pixels.movedim(0, -3)  # (..., 3, h, w), as `known` is (..., h, w)
    blank = (seen.plain(128) if seen.tiled else seen.plain(128).movedim(0, -3)).float().cpu()
    side = pixels.shape[-2:]
    frames = zip(of_frames.reshape(-1, 3, *side), blank.reshape(-1, 3, *side), known.reshape(-1, *side), strict=True)
    made = [
        torch.from_numpy(impute(frame.numpy(), kept.numpy())).float() if kept.any() else grey for frame, grey, kept in frames
    ]
    filled = torch.stack(made).view(of_frames.shape)
    filled = filled if seen.tiled else filled.movedim(-3, 0)
    draw = torch.Generator().manual_seed(0)
    noise = 0.01 * float(pixels.std()) * torch.randn(pixels.shape, generator=draw)
    return seen.kept(known.float(), (filled + noise).to(seen.pixels))


def _curve(variants: Variants, change: Change, shares: Sequence[float], hottest: bool) -> Tensor:
    """(R, S) scores with those shares of the pixels kept, the hottest of them or the coldest."""

    def asked() -> Iterator[tuple[int, Tensor]]:
        for row in range(len(variants)):
            rank = _ranks(variants.heat(row))
            for share in shares:
                count = round(share * rank.numel())
                yield row, ((rank < count) if hottest else (rank >= rank.numel() - count)).float()

    return variants.ask(asked(), change).view(len(variants), len(shares))


def _ranks(heat: Tensor) -> Tensor:
    """Each pixel's place from the hottest (0) on; equal ones in a random order that is the same for every map of that size."""
    mixed = torch.randperm(heat.numel(), generator=torch.Generator().manual_seed(0))
    order = mixed[heat.flatten()[mixed].argsort(descending=True, stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.view(heat.shape)


def _area(curve: Tensor, shares: Sequence[float]) -> Tensor:
    at = torch.tensor(list(shares))
    return torch.trapezoid(curve, at, dim=1) / (at[-1] - at[0])


def _probable(told: Tensor) -> Tensor:
    """Log-probabilities as they are, refused where one is none."""
    if bool((told > 1e-3).any()):
        raise InputError(
            f"expected targets that have a probability, and one of them is exp({float(told.max()):.3g}): a contrast (against=) "
            "has a ratio of two; leave it out, as in made[0]"
        )
    return told
