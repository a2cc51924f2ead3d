"""Methods that look at more of the model than features and gradients: CAM at its head, FullGrad at all its biases."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgradcam.errors import InputError
from mmgradcam.layers import TargetLayer, find_target_layer, record_calls
from mmgradcam.methods.cam import divided
from mmgradcam.probe import Probe, gathered

__all__ = ["cam", "fullgrad"]


def cam(probe: Probe) -> Tensor:
    """CAM: sum_k w_k A_k with the classifier's own weights w; for a head of global average pooling and one linear layer.

    Under such a head, and only there, the gradient is w_k / Z at every cell, whatever the features: that is checked, and the
    weights are read off it.

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, *grid), of either sign.

    Raises:
        InputError: the head is of another kind.
    """
    maps = []
    for place, (features, gradients) in enumerate(gathered(probe.gradients_of())):
        cells = tuple(range(2, gradients.dim()))
        if not _same(gradients, gradients.mean(cells, keepdim=True).expand_as(gradients)):
            raise _unfit("its gradient is not the same at every cell")
        if features.shape[2:].numel() == 1:
            raise _unfit("there is a single cell, and so no map; take it before the pooling")
        ((_, elsewhere),) = gathered(probe.gradients_of_changed(place, torch.zeros_like(probe.activations[place])))
        if not _same(gradients, elsewhere):
            raise _unfit("its gradient depends on the features")
        maps.append((gradients.sum(cells, keepdim=True) * features).sum(1))
    return probe.fused(maps)


def _unfit(why: str) -> InputError:
    return InputError(f"cam: expected a head of global average pooling and one linear layer, but {why}; use gradcam instead")


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-4 * one.abs().max())


def fullgrad(probe: Probe) -> Tensor:
    """FullGrad: the pixels' x * dy/dx and every convolution's and batch norm's b * dy/db, made one picture.

    Each of these maps (of each channel) is psi: its absolute value, scaled to 0..1, brought to the pixels' size; the picture
    is their sum. Batch norm's implicit bias is beta - gamma * mean / std. Over a net of ReLUs, x * dy/dx and all b * dy/db
    sum to the score. Valid for encoders of convolutions, batch norms and ReLUs; other layers' biases are left out.

    Source: Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019, eq. 6 and 8.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, h, w) at the size of the pixels, >= 0.
    """
    size = probe.side
    maps = probe.pixels.new_zeros(len(probe.targets), *size, dtype=torch.float32)
    biased = biases(probe)
    for part in replace(probe, memory=1).gradients_of(
        at_pixels=True, target_layers=[target_layer for target_layer, _ in biased]
    ):
        rows = torch.tensor([t for _, t in part.rows], device=maps.device)
        (pixels, gradient), *layers = part.activations
        maps.index_add_(0, rows, _psi((pixels * gradient).sum(1, keepdim=True), size))
        for (_, bias), (_, gradients) in zip(biased, layers, strict=True):
            maps.index_add_(0, rows, _psi(gradients * bias.to(gradients).view(1, -1, 1, 1), size))
    return maps


def _psi(contribution: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, C, H, W) -> (n, h, w)."""
    x = contribution.abs()
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    x = divided(x - low, high - low)
    return F.interpolate(x.sum(1, keepdim=True), size=size, mode="bilinear", align_corners=False).squeeze(1)


def biases(probe: Probe) -> list[tuple[TargetLayer, Tensor]]:
    """The encoder's convolutions and batch norms that have a bias, with it, (C,)."""
    modules = probe.task.modules()
    with record_calls(modules) as encoding, torch.no_grad():
        probe.task.encode(probe.pixels)
    found = []
    for module in dict.fromkeys(encoding):
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            deviation = (module.running_var + module.eps).sqrt()
            scale = module.weight if module.weight is not None else torch.ones_like(deviation)
            shift = module.bias if module.bias is not None else torch.zeros_like(deviation)
            found.append((find_target_layer(module, modules), (shift - scale * module.running_mean / deviation).detach()))
        elif isinstance(module, nn.modules.conv._ConvNd) and module.bias is not None:
            found.append((find_target_layer(module, modules), module.bias.detach()))
    return found
