"""Gradient methods of the CAM family: (features A, gradients G) -> maps, each of K targets on its own.

Shapes are (K, C, *grid) -> (K, *grid) throughout, for a grid of any number of dimensions. Maps are raw: never rescaled,
and non-negative only where the method itself rectifies. Z is the number of grid cells, sums over ij run over the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmgradcam.errors import InputError

__all__ = [
    "counterfactual",
    "eigencam",
    "eigengradcam",
    "gradcam",
    "gradcam_pp",
    "gradcam_pp_code",
    "hirescam",
    "layercam",
    "normgrad",
    "xgradcam",
]


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: relu(sum_k a_k A_k) with a_k = mean_ij G_k.

    Suits heads that pool the grid. Under a head that attends to places, averaging the gradient over space throws away what
    it knows of place; prefer `hirescam` or `layercam` there.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2.

    Args:
        features: A, (K, C, *grid).
        gradients: G, the same shape.

    Returns:
        (K, *grid), >= 0.

    >>> A, G = torch.ones(1, 2, 2, 2), torch.tensor([1.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    >>> gradcam(A, G).max().item(), counterfactual(A, G).max().item()
    (0.0, 2.0)
    """
    return torch.relu(_weighed(_mean(gradients), features))


def counterfactual(features: Tensor, gradients: Tensor) -> Tensor:
    """Counterfactual Grad-CAM: the same with a_k = mean_ij(-G_k); where the picture speaks against the target.

    Source: Selvaraju et al. 2017, section 3.3.

    Args:
        features: A, (K, C, *grid).
        gradients: G, the same shape.

    Returns:
        (K, *grid), >= 0.
    """
    return gradcam(features, -gradients)


def gradcam_pp(features: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ as the paper's equations have it: relu(sum_k w_k A_k), w_k = sum_ij alpha relu(G).

    alpha = G^2 / (2 G^2 + (sum_ab A_ab) G^3), elementwise, 0 where its denominator is 0; it supposes Y = exp(S), whose
    positive factor exp(S) changes no picture and is left out. Because alpha compares G^2 with G^3, the picture depends on
    the scale of the score. (The authors' code differs: it also zeroes alpha where G <= 0 and divides it by its sum.)

    Source: Chattopadhyay et al., "Grad-CAM++", WACV 2018, equations 10 and 19.

    Args:
        features: A, (K, C, *grid), >= 0: what a ReLU puts out.
        gradients: G, the same shape.

    Returns:
        (K, *grid), >= 0.

    Raises:
        InputError: some feature is negative; alpha is then no weight (it may be negative, or huge).
    """
    weights = _sum(_alpha(features, gradients, "gradcam_pp") * torch.relu(gradients))
    return torch.relu(_weighed(weights, features))


def gradcam_pp_code(features: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ as its authors' code has it: alpha of `gradcam_pp`, divided by its sum over the places where G > 0.

    Source: Chattopadhyay et al. 2018, the published code (misc/utils.py), which differs from equation 19.

    Args:
        features: A, (K, C, *grid), >= 0.
        gradients: G, the same shape.

    Returns:
        (K, *grid), >= 0.

    Raises:
        InputError: some feature is negative.
    """
    alpha, positive = _alpha(features, gradients, "gradcam_pp_code"), torch.relu(gradients)
    total = _sum(torch.where(positive > 0, alpha, torch.zeros_like(alpha)))
    alpha = alpha / torch.where(total == 0, torch.ones_like(total), total)
    return torch.relu(_weighed(_sum(alpha * positive), features))


def hirescam(features: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: sum_k G_k * A_k, elementwise. Signed; over a linear head it sums to the score less its bias.

    Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020, equation 4.

    Args:
        features: A, (K, C, *grid).
        gradients: G, the same shape.

    Returns:
        (K, *grid), of either sign.
    """
    return (gradients * features).sum(1)


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: relu(sum_k relu(G_k) * A_k), elementwise.

    Source: Jiang et al., "LayerCAM", IEEE TIP 2021, equations 5 to 7.

    Args:
        features: A, (K, C, *grid).
        gradients: G, the same shape.

    Returns:
        (K, *grid), >= 0.
    """
    return torch.relu((torch.relu(gradients) * features).sum(1))


def xgradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM: relu(sum_k w_k A_k) with w_k = sum_ij A_k G_k / sum_ij A_k; a channel that sums to 0 weighs 0.

    Source: Fu et al., "Axiom-based Grad-CAM", BMVC 2020, equation 7.

    Args:
        features: A, (K, C, *grid).
        gradients: G, the same shape.

    Returns:
        (K, *grid), >= 0.
    """
    total = _sum(features)
    weights = _sum(features * gradients) / torch.where(total == 0, torch.ones_like(total), total)
    return torch.relu(_weighed(torch.where(total == 0, torch.zeros_like(weights), weights), features))


def normgrad(features: Tensor, gradients: Tensor) -> Tensor:
    """NormGrad: |G| |A|, the norms over the channels at each cell; how much the score depends on the cell, for or against.

    The norm of the gradient that a 1 x 1 convolution put there, being the identity, would have of the cell alone.

    Source: Rebuffi et al., "There and Back Again: Revisiting Backpropagation Saliency Methods", CVPR 2020, section 3.2.

    Args:
        features: A, (K, C, *grid).
        gradients: G, the same shape.

    Returns:
        (K, *grid), >= 0.
    """
    largest = gradients.detach().abs().amax(tuple(range(1, gradients.dim())), keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))  # squares of small gradients would be 0
    norms = torch.linalg.vector_norm(gradients / scale, dim=1, keepdim=True) * scale
    drawn: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True) * norms
    return drawn.squeeze(1)


def eigencam(features: Tensor, gradients: Tensor) -> Tensor:
    """Eigen-CAM: A v_1, v_1 the first right singular vector of the cells x channels matrix A; the same for every target.

    Singular vectors have no sign of their own; this one points along sum_k A_k.

    Source: Muhammad and Yeasin, "Eigen-CAM", IJCNN 2020, section III.

    Args:
        features: A, (K, C, *grid).
        gradients: not used.

    Returns:
        (K, *grid), of either sign.
    """
    return _first_component(features)


def eigengradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Eigen-Grad-CAM: Eigen-CAM of G * A, elementwise, so that it speaks of the target.

    Source: the pytorch-grad-cam library, after Muhammad and Yeasin 2020; without that library's centring.

    Args:
        features: A, (K, C, *grid).
        gradients: G, the same shape.

    Returns:
        (K, *grid), of either sign.
    """
    return _first_component(gradients * features)


def _first_component(channels: Tensor) -> Tensor:
    """(K, C, *grid) -> (K, *grid), by the smaller of the two Gram matrices.

    The map is homogeneous in the channels: they are divided by their largest magnitude, lest their squares overflow or vanish,
    and the map is multiplied by it. As a constant: the factor's own gradient is 0.
    """
    flat = channels.flatten(2)
    scale = flat.detach().abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    flat = flat / scale
    if flat.shape[1] <= flat.shape[2]:
        direction = torch.linalg.eigh(flat @ flat.mT).eigenvectors[..., -1:]
        found = (flat.mT @ direction).squeeze(-1)
    else:
        values, vectors = torch.linalg.eigh(flat.mT @ flat)
        found = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    sign = torch.where((found * flat.sum(1)).sum(1, keepdim=True) < 0, -1.0, 1.0)
    maps: Tensor = (found * sign * scale.flatten(1)).unflatten(1, channels.shape[2:])
    return maps


def _alpha(features: Tensor, gradients: Tensor, name: str) -> Tensor:
    """Grad-CAM++'s alpha, (K, C, *grid)."""
    if (features < 0).any():
        raise InputError(
            f"{name}: expected features >= 0, as after a ReLU, got a minimum of {features.min().item():.3g}; "
            "use gradcam, hirescam or layercam on these features"
        )
    # G^2 is taken out of the fraction: of G below 1e-19 it is 0 in float32.
    return divided((gradients != 0).to(gradients), 2 + _sum(features) * gradients)


def divided(above: Tensor, below: Tensor) -> Tensor:
    """Above / below, and 0 where below is 0."""
    return torch.where(below == 0, torch.zeros_like(above), above / torch.where(below == 0, torch.ones_like(below), below))


def _weighed(weights: Tensor, features: Tensor) -> Tensor:
    """sum_k w_k A_k, (K, C, 1, ...) and (K, C, *grid) -> (K, *grid); the product of the two is never laid down."""
    return torch.einsum("kc,kc...->k...", weights.flatten(1), features)


def _mean(tensor: Tensor) -> Tensor:
    """Mean over the grid, (K, C, *grid) -> (K, C, 1, ...)."""
    return tensor.mean(tuple(range(2, tensor.dim())), keepdim=True)


def _sum(tensor: Tensor) -> Tensor:
    """Sum over the grid, (K, C, *grid) -> (K, C, 1, ...)."""
    return tensor.sum(tuple(range(2, tensor.dim())), keepdim=True)
