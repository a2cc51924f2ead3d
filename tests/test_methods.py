"""Each method against its paper's formula, written out slowly, on random features and gradients in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product as every

import pytest
import torch
from conftest import Classes, Linear
from torch import Tensor, nn

from mmgradcam import (
    InputError,
    counterfactual,
    explain,
    gradcam,
    gradcam_pp,
    hirescam,
    layercam,
    mean,
    normgrad,
    product,
    xgradcam,
)
from mmgradcam.methods import eigencam, eigengradcam, gradcam_pp_code

K, C, H, W = 3, 4, 5, 6
Slow = Callable[[list[list[list[float]]], list[list[list[float]]], int, int], float]


def weighted(weights: Callable[..., list[float]]) -> Slow:
    """relu(sum_k w_k A_k[i][j]) for methods that give each channel one weight."""

    def at(a: list[list[list[float]]], g: list[list[list[float]]], i: int, j: int) -> float:
        return max(0.0, sum(w * a[k][i][j] for k, w in enumerate(weights(a, g))))

    return at


CELLS = list(every(range(H), range(W)))


def mean_gradient(a: list[list[list[float]]], g: list[list[list[float]]]) -> list[float]:
    return [sum(g[k][i][j] for i, j in CELLS) / (H * W) for k in range(C)]


def minus_mean_gradient(a: list[list[list[float]]], g: list[list[list[float]]]) -> list[float]:
    return [sum(-g[k][i][j] for i, j in CELLS) / (H * W) for k in range(C)]


def plus_plus(a: list[list[list[float]]], g: list[list[list[float]]]) -> list[float]:
    """Chattopadhyay 2018, equations 10 and 19, for Y = exp(S): every derivative of Y carries the same factor exp(S)."""
    weights = []
    for k in range(C):
        total = sum(a[k][i][j] for i, j in CELLS)
        weight = 0.0
        for i, j in CELLS:
            second, third = g[k][i][j] ** 2, g[k][i][j] ** 3
            below = 2 * second + total * third
            alpha = second / below if below != 0 else 0.0
            weight += alpha * max(0.0, g[k][i][j])
        weights.append(weight)
    return weights


def axiomatic(a: list[list[list[float]]], g: list[list[list[float]]]) -> list[float]:
    weights = []
    for k in range(C):
        total = sum(a[k][i][j] for i, j in CELLS)
        weights.append(sum(a[k][i][j] / total * g[k][i][j] for i, j in CELLS))
    return weights


def elementwise(a: list[list[list[float]]], g: list[list[list[float]]], i: int, j: int) -> float:
    return sum(g[k][i][j] * a[k][i][j] for k in range(C))


def positive_elementwise(a: list[list[list[float]]], g: list[list[list[float]]], i: int, j: int) -> float:
    return max(0.0, sum(max(0.0, g[k][i][j]) * a[k][i][j] for k in range(C)))


def norms(a: list[list[list[float]]], g: list[list[list[float]]], i: int, j: int) -> float:
    return math.sqrt(sum(a[k][i][j] ** 2 for k in range(C)) * sum(g[k][i][j] ** 2 for k in range(C)))


SLOW: dict[Callable[[Tensor, Tensor], Tensor], Slow] = {
    gradcam: weighted(mean_gradient),
    counterfactual: weighted(minus_mean_gradient),
    gradcam_pp: weighted(plus_plus),
    xgradcam: weighted(axiomatic),
    hirescam: elementwise,
    layercam: positive_elementwise,
    normgrad: norms,
}


@pytest.mark.parametrize(
    ("method", "signed"),
    [(m, signed) for m in SLOW for signed in (False, True) if not (signed and m is gradcam_pp)],
    ids=lambda v: getattr(v, "__name__", "signed" if v else "positive"),
)
def test_a_method_is_its_formula(method: Callable[[Tensor, Tensor], Tensor], signed: bool) -> None:
    """On features of a ReLU, and on signed ones (ViT, SiLU), but for Grad-CAM++, which refuses those."""
    features = (torch.randn if signed else torch.rand)(K, C, H, W, dtype=torch.float64)
    gradients = torch.randn(K, C, H, W, dtype=torch.float64)
    maps = method(features, gradients)
    for n in range(K):
        a, g = features[n].tolist(), gradients[n].tolist()
        slow = torch.tensor([[SLOW[method](a, g, i, j) for j in range(W)] for i in range(H)], dtype=torch.float64)
        torch.testing.assert_close(maps[n], slow, rtol=1e-10, atol=1e-12)
    assert (maps != 0).any()


@pytest.mark.parametrize("method", SLOW, ids=lambda m: m.__name__)
def test_a_method_takes_a_grid_of_any_rank(method: Callable[[Tensor, Tensor], Tensor]) -> None:
    features, gradients = torch.rand(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)
    maps = method(features, gradients)
    flat = method(features.flatten(2), gradients.flatten(2))
    torch.testing.assert_close(maps.flatten(1), flat)


@pytest.mark.parametrize("method", [m for m in SLOW if m is not gradcam_pp], ids=lambda m: m.__name__)
def test_a_scaled_target_gives_the_same_picture(method: Callable[[Tensor, Tensor], Tensor]) -> None:
    features, gradients = torch.rand(K, C, H, W), torch.randn(K, C, H, W)
    maps, weakly_grounded = method(features, gradients), method(features, gradients * 1e-8)
    torch.testing.assert_close(weakly_grounded / weakly_grounded.abs().amax(), maps / maps.abs().amax(), rtol=1e-4, atol=1e-6)


def test_grad_cam_pp_depends_on_the_scale_of_the_score_as_its_formula_does() -> None:
    """Alpha compares G^2 with G^3: for tiny scores it becomes 1/2, and the map that of relu(G) summed."""
    features, gradients = torch.rand(1, C, H, W, dtype=torch.float64), torch.randn(1, C, H, W, dtype=torch.float64)
    weakly_grounded = gradcam_pp(features, gradients * 1e-8)
    half = torch.relu((torch.relu(gradients).sum((2, 3), keepdim=True) * features).sum(1))
    torch.testing.assert_close(weakly_grounded / weakly_grounded.max(), half / half.max(), rtol=1e-5, atol=1e-7)


def test_grad_cam_pp_refuses_signed_features() -> None:
    with pytest.raises(InputError, match=r"expected features >= 0.*minimum of -"):
        gradcam_pp(torch.randn(1, C, H, W), torch.randn(1, C, H, W))


@pytest.mark.parametrize("method", [gradcam_pp, gradcam_pp_code])
def test_grad_cam_pp_weighs_zero_gradients_by_zero_and_stays_finite(method: Callable[[Tensor, Tensor], Tensor]) -> None:
    gradients = torch.zeros(1, C, H, W)
    gradients[0, 0, 0, 0] = -1e-3
    maps = method(torch.rand(1, C, H, W), gradients)
    assert torch.isfinite(maps).all()
    assert not maps.any()


def test_grad_cam_pp_takes_features_of_0() -> None:
    """What a ReLU puts out is 0 in places; only what is below is refused."""
    features, gradients = torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
    features[0, 0, 0, 1] = 4.0
    # Of the first channel alpha is 1 / (2 + 4), of the other, whose sum is 0, it does not matter.
    assert gradcam_pp(features, gradients).tolist() == [[[0.0, pytest.approx(4 * 2 / 6)]]]
    assert gradcam_pp_code(features, gradients).tolist() == [[[0.0, 4.0]]]


def test_channels_that_sum_to_zero_weigh_zero_in_xgradcam() -> None:
    features, gradients = torch.rand(1, 2, 2, 2), torch.randn(1, 2, 2, 2)
    features[0, 1] = 0
    gradients[0, 0] = gradients[0, 0].abs()
    only = xgradcam(features[:, :1], gradients[:, :1])
    assert only.any()
    torch.testing.assert_close(xgradcam(features, gradients), only)
    features[0, 1] = torch.tensor([[3.0, -3.0], [0.5, -0.5]])  # it sums to 0, and is not 0
    gradients[0, 1] = 1000 * features[0, 1]
    torch.testing.assert_close(xgradcam(features, gradients), only)


def linear_task() -> tuple[Classes, Linear]:
    model = Linear().double().eval()
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head)
    task = Classes(model, pooled)
    task.encode = lambda images: model.features(images)  # type: ignore[method-assign]
    return task, model


def test_cam_equals_grad_cam_on_pooling_and_a_linear_layer(pixels: Tensor) -> None:
    """Zhou 2016: with GAP and a linear head, CAM (the classifier's own weights) is Grad-CAM times Z, before the ReLU."""
    task, model = linear_task()
    made = explain(task, pixels, method=gradcam, classes=[0, 1, 2, 3])
    features = model.features(pixels[None])[0].detach()
    for i, one in enumerate(made):
        cam = torch.relu((model.head.weight[i].detach()[:, None, None] * features).sum(0)) / features[0].numel()
        torch.testing.assert_close(one.map, cam.float())


def test_hirescam_sums_to_the_score_less_its_bias(pixels: Tensor) -> None:
    task, model = linear_task()
    made = explain(task, pixels, method=hirescam, classes=[0, 1, 2, 3])
    torch.testing.assert_close(made.maps.sum((1, 2)), made.scores - model.head.bias.detach().float(), rtol=1e-5, atol=1e-6)


def test_grad_cam_and_hirescam_coincide_under_a_mean_pooled_head(pixels: Tensor) -> None:
    task, _ = linear_task()
    maps = [explain(task, pixels, method=method).maps.clamp(min=0) for method in (gradcam, hirescam)]
    torch.testing.assert_close(*maps)


def test_fusions_on_maps_worked_by_hand() -> None:
    coarse = torch.tensor([[[2.0]]])
    fine = torch.tensor([[[-1.0, 4.0], [1.0, 2.0]]])
    torch.testing.assert_close(product([coarse, fine]), torch.tensor([[[0.0, 1.0], [0.25, 0.5]]]))
    torch.testing.assert_close(mean([coarse, fine]), torch.tensor([[[0.5, 1.0], [0.625, 0.75]]]))
    assert not product([torch.zeros(1, 1, 1), fine]).any()
    assert math.isclose(float(product([fine * 1e-30, fine * 1e-30]).max()), 1.0)


def test_fusions_on_grids_of_one_and_three_dimensions() -> None:
    """Linear between the middles of the cells: two cells over four are 0, a quarter, three quarters, 1."""
    line, finer = torch.tensor([[0.0, 8.0]]), torch.ones(1, 4)
    torch.testing.assert_close(product([line, finer]), torch.tensor([[0.0, 0.25, 0.75, 1.0]]))
    torch.testing.assert_close(mean([finer, line]), torch.tensor([[0.5, 0.625, 0.875, 1.0]]))
    clip = line.view(1, 1, 1, 2).expand(1, 2, 1, 2)
    torch.testing.assert_close(product([clip, torch.ones(1, 3, 2, 4)]), product([line, finer]).expand(1, 3, 2, 4))
    each = product([torch.tensor([[1.0, 2.0], [30.0, 0.0]]), torch.tensor([[4.0, 4.0], [5.0, 5.0]])])
    assert each.tolist() == [[0.5, 1.0], [1.0, 0.0]], "each target has a maximum of its own"


def test_the_authors_code_of_grad_cam_pp() -> None:
    """misc/utils.py of the published code: alpha divided by its sum over the places whose weight is not 0."""
    features = torch.rand(K, C, H, W, dtype=torch.float64)
    gradients = torch.randn(K, C, H, W, dtype=torch.float64)
    maps = gradcam_pp_code(features, gradients)
    for n in range(K):
        slow = torch.zeros(H, W, dtype=torch.float64)
        for k in range(C):
            a, g = features[n, k], gradients[n, k]
            alphas = g**2 / (2 * g**2 + g**3 * a.sum())
            weights = g.clamp(min=0)
            constant = sum(float(alphas[i, j]) for i, j in CELLS if weights[i, j] != 0)
            slow += sum(float(weights[i, j] * alphas[i, j]) / constant for i, j in CELLS) * a
        torch.testing.assert_close(maps[n], slow.clamp(min=0), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(maps, gradcam_pp(features, gradients))
    with pytest.raises(InputError, match="gradcam_pp_code: expected features >= 0"):
        gradcam_pp_code(-features, gradients)


def principal(matrix: Tensor) -> Tensor:
    """(cells, channels) -> (cells,) projections on the first right singular vector, which points along the cells' sums."""
    projected = matrix @ torch.linalg.svd(matrix).Vh[0]
    return projected if float(projected @ matrix.sum(1)) > 0 else -projected


@pytest.mark.parametrize("method", [eigencam, eigengradcam])
@pytest.mark.parametrize("channels", [3, H * W, 40])
def test_eigen_methods_project_on_the_first_singular_vector(method: Callable[[Tensor, Tensor], Tensor], channels: int) -> None:
    features = torch.randn(K, channels, H, W, dtype=torch.float64)
    gradients = torch.randn(K, channels, H, W, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 50.0]).view(3, 1, 1, 1)
    maps = method(features, gradients)
    for n in range(K):
        matrix = (features[n] * (gradients[n] if method is eigengradcam else 1)).flatten(1).T
        torch.testing.assert_close(maps[n], principal(matrix).view(H, W), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("channels", [3, 40])
def test_eigen_methods_keep_their_units_where_squares_vanish_or_overflow(scale: float, channels: int) -> None:
    features, ones = torch.randn(2, channels, H, W), torch.ones(2, channels, H, W)
    for maps in (eigencam(features * scale, ones), eigengradcam(features, ones * scale)):
        slow = torch.stack([principal(one.flatten(1).T).view(H, W) for one in features.double()])
        torch.testing.assert_close(maps.double() / scale, slow, rtol=1e-3, atol=1e-4)


def test_the_scale_of_an_eigen_map_has_no_gradient_of_its_own() -> None:
    """In a loss (create_graph=True) the map is what the singular value decomposition gives, and so is its gradient."""
    features = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: eigencam(a, a), features)


def test_eigen_methods_of_nothing_are_nothing() -> None:
    maps = eigengradcam(torch.rand(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    assert torch.isfinite(maps).all()
    assert not maps.any()
