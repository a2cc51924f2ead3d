"""Methods that follow the gradient down to the pixels. Maps are (K, h, w) at the size of the model's pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgradcam.errors import InputError
from mmgradcam.methods.cam import gradcam, gradcam_pp
from mmgradcam.probe import Probe, gathered
from mmgradcam.task import Method

__all__ = ["deconvnet", "gradient_x_input", "guided_backprop", "guided_gradcam", "guided_gradcam_pp", "integrated_gradients"]

MOST_PIXELS = 2**33
"""Bytes of the pictures that one explanation may take."""


def gradient_x_input(probe: Probe) -> Tensor:
    """Gradient times input: sum over colors of x * dy/dx.

    Source: Shrikumar et al., "Not Just a Black Box", 2016.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, h, w), of either sign.
    """
    ((pixels, gradients),) = gathered(probe.gradients_of(at_pixels=True, target_layers=[]))
    return (pixels * gradients).sum(1)


def integrated_gradients(probe: Probe, steps: int = 32, baseline: float = 0.0) -> Tensor:
    """Integrated gradients: sum over colors of (x - x0) times the mean gradient on the way from x0 to x (midpoint rule).

    The map sums to y(x) - y(x0), up to the error of the integral.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1.

    Args:
        probe: the picture and its targets.
        steps: pictures on the way, each encoded once.
        baseline: x0, a value of the model's normalized pixels; 0 is the mean grey of a normalized picture.

    Returns:
        (K, h, w), of either sign.

    Raises:
        InputError: fewer than 1 step, or more than 8 GiB of pictures.
    """
    most = MOST_PIXELS // (4 * probe.pixels.numel())
    if not 1 <= steps <= most:
        raise InputError(
            f"integrated_gradients: expected 1 step or more, and at most {most:,} for a picture of this size, got {steps:,}"
        )
    way = probe.pixels - baseline
    shares = (torch.arange(steps, dtype=probe.pixels.dtype, device=way.device) + 0.5) / steps
    total = way.new_zeros(len(probe.targets), *way.shape[1:], dtype=torch.float32)
    done: set[tuple[int, int]] = set()
    for part in probe.gradients_of(baseline + shares.view(-1, 1, 1, 1) * way, at_pixels=True, target_layers=[]):
        new = [i for i, row in enumerate(part.rows) if row not in done]
        done.update(part.rows)
        index = torch.tensor([part.rows[i][1] for i in new], device=way.device)
        ((_, gradients),) = part.activations
        total.index_add_(0, index, gradients[new])
    return (way.float() * total / steps).sum(1)


def guided_backprop(probe: Probe) -> Tensor:
    """Guided backprop: the largest of the colors' |dy/dx|, where every ReLU's backward is relu(g) * [x > 0].

    Defined for ReLUs, of the encoder and the head alike, however they are written; SiLU, GELU and other smooth activations
    are outside its definition, go by their own gradient, and are warned of.

    Source: Springenberg et al., "Striving for Simplicity", 2015.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, h, w), >= 0.

    Raises:
        ModelError: the model runs no ReLU.
    """
    return _ruled(probe, "guided")


def deconvnet(probe: Probe) -> Tensor:
    """Deconvnet: the largest of the colors' |dy/dx|, where every ReLU's backward is relu(g); otherwise as `guided_backprop`.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, h, w), >= 0.

    Raises:
        ModelError: the model runs no ReLU.
    """
    return _ruled(probe, "deconvnet")


def _ruled(probe: Probe, rule: str) -> Tensor:
    ((_, gradients),) = gathered(probe.gradients_of(at_pixels=True, target_layers=[], rule=rule))
    return gradients.abs().amax(1)


def guided_gradcam(probe: Probe) -> Tensor:
    """Guided Grad-CAM: guided backprop times Grad-CAM, brought to the pixels' size.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, h, w), >= 0.
    """
    return _guided(probe, gradcam)


def guided_gradcam_pp(probe: Probe) -> Tensor:
    """Guided Grad-CAM++: guided backprop times Grad-CAM++, brought to the pixels' size.

    Source: Chattopadhyay et al., "Grad-CAM++", WACV 2018, section 3.

    Args:
        probe: the picture and its targets.

    Returns:
        (K, h, w), >= 0.
    """
    return _guided(probe, gradcam_pp)


def _guided(probe: Probe, method: Method) -> Tensor:
    maps = probe.fused([method(a, g) for a, g in gathered(probe.gradients_of())])
    if maps.dim() != 3:
        raise InputError(f"expected maps over height and width, got a grid of {maps.dim() - 1} dimensions")
    fine = F.interpolate(maps[:, None], size=probe.side, mode="bilinear", align_corners=False).squeeze(1)
    return guided_backprop(probe) * fine
